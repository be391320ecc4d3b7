import {
  createContext,
  createElement,
  type FunctionComponent,
  type ReactNode,
  useCallback,
  useContext,
  useEffect,
  useRef,
  useState,
} from "react";
import type { DefaultPath, DefaultPaths, EventBody, EventPath, EventView } from "./api.js";
import type { OutboxClient } from "./client.js";
import type { QueueEntry } from "./queue.js";

interface ProviderProps<Paths extends object> {
  readonly client: OutboxClient<Paths>;
  readonly children?: ReactNode;
}

/** The hooks with the types of a service's own paths. */
export interface OutboxHooks<Paths extends object> {
  readonly OutboxProvider: FunctionComponent<ProviderProps<Paths>>;
  readonly useOutbox: () => OutboxClient<Paths>;
  readonly useSubmit: <Path extends EventPath<Paths> = DefaultPath<Paths>>(
    path?: Path,
  ) => Submission<EventBody<Paths, Path>>;
}

/** The same hooks, with the types of `Paths`. */
export function outboxHooks<Paths extends object>(): OutboxHooks<Paths> {
  return { OutboxProvider, useOutbox, useSubmit } as unknown as OutboxHooks<Paths>;
}

const Context = createContext<OutboxClient | undefined>(undefined);

/** Gives the client to the hooks below it. */
export function OutboxProvider(props: ProviderProps<DefaultPaths>): ReactNode {
  return createElement(Context.Provider, { value: props.client }, props.children);
}

/** The client of the provider above. */
export function useOutbox(): OutboxClient {
  const client = useContext(Context);
  if (!client) throw new Error("useOutbox needs an OutboxProvider above it.");
  return client;
}

/** An event followed to its end: undefined until the first answer. */
export interface FollowedEvent {
  readonly event: EventView | undefined;
  readonly error: unknown;
}

/** Follows one event while the component is mounted; nothing without an id. */
export function useEvent(id: string | undefined): FollowedEvent {
  const client = useOutbox();
  const [followed, setFollowed] = useState<FollowedEvent>(NOTHING);
  useEffect(() => {
    setFollowed(NOTHING);
    if (!id) return undefined;
    const unmounted = new AbortController();
    follow(client, id, unmounted.signal, setFollowed).catch((error: unknown) => {
      if (!unmounted.signal.aborted) setFollowed((last) => ({ ...last, error }));
    });
    return () => unmounted.abort();
  }, [client, id]);
  return followed;
}

/** What a submission is doing. `waiting` lasts until the service has the event. */
export interface Submission<Body> extends FollowedEvent {
  readonly submit: (body: Body | Promise<Body>) => void;
  readonly waiting: boolean;
}

/**
 * Submits events to a path and follows the last one to its result.
 * `submit` also takes the promise of a body, such as an upload's. It returns at once, so that a form
 * action may call it: React shows nothing of a form before its action has ended. It does not throw:
 * see `error`.
 */
export function useSubmit<Path extends EventPath<DefaultPaths> = "/api/route">(
  path?: Path,
): Submission<EventBody<DefaultPaths, Path>> {
  const client = useOutbox();
  const [state, setState] = useState<SubmitState>(IDLE);
  const followed = useEvent(state.eventId);
  const last = useRef<Promise<unknown>>(undefined);
  const submit = useCallback(
    (body: EventBody<DefaultPaths, Path> | Promise<EventBody<DefaultPaths, Path>>) => {
      setState({ waiting: true });
      const posted = Promise.resolve(body).then((given) => client.submit(given, path && { path }));
      last.current = posted;
      const show = (ended: SubmitState): void => {
        if (last.current === posted) setState(ended);
      };
      posted.then(
        ({ eventId }) => show({ waiting: false, eventId }),
        (error: unknown) => show({ waiting: false, error }),
      );
    },
    [client, path],
  );
  return { ...followed, submit, waiting: state.waiting, error: state.error ?? followed.error };
}

/** How many events wait in this browser for the service. */
export function useQueued(): number {
  const client = useOutbox();
  const [count, setCount] = useState(0);
  useEffect(() => {
    const waiting = (entries: QueueEntry[]): number => entries.filter((one) => !one.refusal).length;
    const show = (entries: QueueEntry[]): void => setCount(waiting(entries));
    // Where the browser refuses storage, nothing is counted.
    const read = (): void => void client.queued().then(show, () => show([]));
    read();
    return client.onQueueChange(read);
  }, [client]);
  return count;
}

interface SubmitState {
  readonly waiting: boolean;
  readonly eventId?: string;
  readonly error?: unknown;
}

const IDLE: SubmitState = { waiting: false };
const NOTHING: FollowedEvent = { event: undefined, error: undefined };

async function follow(
  client: OutboxClient,
  id: string,
  signal: AbortSignal,
  show: (followed: FollowedEvent) => void,
): Promise<void> {
  for await (const event of client.watch(id, { signal })) show({ event, error: undefined });
}
