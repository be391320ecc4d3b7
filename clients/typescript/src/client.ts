import type {
  DefaultPath,
  DefaultPaths,
  EventBody,
  EventPage,
  EventPath,
  EventView,
  FinalEvent,
  ListOptions,
} from "./api.js";
import { Events, type WaitOptions } from "./events.js";
import { type Broadcast, broadcast, onReturn } from "./page.js";
import { indexedDbQueue, memoryQueue, type QueueEntry, type QueueStore } from "./queue.js";
import { DEFAULT_RETRY_POLICY, type RetryPolicy } from "./retry.js";
import { type Accepted, Submissions, type SubmitOptions } from "./submissions.js";
import { Transport } from "./transport.js";
import { type UploadedDocument, type UploadOptions, Uploads } from "./uploads.js";

export interface OutboxClientOptions {
  /** The origin of the service; empty for the page's own. */
  readonly baseUrl?: string;
  /**
   * The id of the signed-in user. Each account has a queue of its own in the browser, so that
   * events of one user are not sent under the session of the next.
   */
  readonly account?: string;
  /**
   * Makes the headers of each request, for example an Authorization header. A request whose
   * headers can't be made is tried again, like one that meets no network.
   */
  readonly headers?: () => HeadersInit | Promise<HeadersInit>;
  /** Where events wait. By default IndexedDB in a browser, memory elsewhere. */
  readonly queue?: QueueStore;
  readonly retry?: Partial<RetryPolicy>;
  readonly fetch?: typeof fetch;
}

const NAME = "inngest-outbox";

/**
 * Posts events to the outbox, each exactly once, and follows them to their result.
 * `Paths` are the service's paths as `inngest-outbox-client types` makes them.
 */
export class OutboxClient<Paths extends object = DefaultPaths> {
  private readonly queue: QueueStore;
  private readonly submissions: Submissions;
  private readonly events: Events;
  private readonly uploads: Uploads;
  private readonly listeners = new Set<() => void>();
  private readonly pages: Broadcast;
  private readonly stopListening: () => void;

  constructor(options: OutboxClientOptions = {}) {
    const request = options.fetch ?? globalThis.fetch.bind(globalThis);
    const transport = new Transport({
      baseUrl: options.baseUrl ?? "",
      fetch: request,
      headers: options.headers ?? (() => ({})),
      credentials: options.baseUrl ? "include" : "same-origin",
    });
    const policy = { ...DEFAULT_RETRY_POLICY, ...options.retry };
    const name = options.account ? `${NAME}:${options.account}` : NAME;
    this.queue = options.queue ?? (globalThis.indexedDB ? indexedDbQueue(name) : memoryQueue());
    this.pages = broadcast(name, () => this.notify());
    const changed = (): void => this.changed();
    this.submissions = new Submissions(transport, this.queue, `${name}:`, policy, changed);
    this.events = new Events(transport, policy);
    this.uploads = new Uploads(transport, request, policy);
    this.stopListening = onReturn(() => this.flush());
  }

  /**
   * Queues an event durably and resolves when the service has it.
   * Waits and repeats through outages, also after a reload or in another tab. Throws OutboxError
   * when the service refuses the event; `queuedAs` then tells whether it stays in the queue.
   */
  submit<Path extends EventPath<Paths> = DefaultPath<Paths>>(
    body: EventBody<Paths, Path>,
    options: SubmitOptions & { path?: Path } = {},
  ): Promise<Accepted> {
    return this.submissions.submit(options.path ?? "/api/route", body, options);
  }

  /**
   * Sends the events that an earlier page left, and ends a wait between two tries. A browser does
   * so when the page opens, when it or the network comes back, and every 30 s.
   */
  flush(): Promise<void> {
    return this.submissions.flush();
  }

  /** The events that the service has not answered yet, and those it refused, oldest first. */
  queued(): Promise<QueueEntry[]> {
    return this.queue.all();
  }

  /** Removes an event from the queue, such as a refused one. The service may have it already. */
  async forget(key: string): Promise<void> {
    await this.queue.remove(key);
    this.changed();
  }

  /** Calls `listener` after each change of the queue by any page; returns how to stop it. */
  onQueueChange(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => void this.listeners.delete(listener);
  }

  /** The event as it is now. */
  get(id: string, options?: WaitOptions): Promise<EventView> {
    return this.events.get(id, options);
  }

  /** Resolves with the event when it is dead, its runs have ended, or it starts none (`noRun`). */
  waitFor(id: string, options?: WaitOptions): Promise<FinalEvent> {
    return this.events.waitFor(id, options);
  }

  /** Yields the event as it is now and after each change, until `waitFor` would resolve. */
  watch(id: string, options?: WaitOptions): AsyncGenerator<EventView> {
    return this.events.watch(id, options);
  }

  /** One page of the user's own events, newest first. */
  list(options?: ListOptions): Promise<EventPage> {
    return this.events.list(options);
  }

  /** Takes back an event that was never sent to Inngest. Throws OutboxError `event_left` otherwise. */
  takeBack(id: string): Promise<void> {
    return this.events.takeBack(id);
  }

  /** Uploads a file straight to the bucket. `submit` takes the `documentName` of the answer. */
  upload(file: Blob, options?: UploadOptions): Promise<UploadedDocument> {
    return this.uploads.upload(file, options);
  }

  /**
   * Stops sending. A durable queue keeps its events for the next page. A promise of `submit` that
   * is pending stays so.
   */
  close(): void {
    this.stopListening();
    this.pages.close();
    this.submissions.close();
  }

  private changed(): void {
    this.notify();
    this.pages.tell();
  }

  private notify(): void {
    for (const listener of this.listeners) {
      try {
        listener();
      } catch (error) {
        console.error(error); // a fault of the page ends no sending
      }
    }
  }
}
