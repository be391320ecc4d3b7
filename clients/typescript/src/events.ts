import type { EventPage, EventView, FinalEvent, ListOptions } from "./api.js";
import { isTransient, OutboxConnectionError, OutboxError } from "./errors.js";
import { delayMs, pause, type RetryPolicy } from "./retry.js";
import { type Answer, either, type Exchange, type Transport } from "./transport.js";

export interface WaitOptions {
  /** Ends the wait; the promise or the iteration then rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

const WAIT_SECONDS = 30;
/** No answer, no server-sent event and no comment came for this long: the connection is dead. */
const SILENCE_MS = 45_000;

/** Follows events. Every read is repeated through outages until the service answers. */
export class Events {
  constructor(
    private readonly transport: Transport,
    private readonly policy: RetryPolicy,
  ) {}

  /** The event as it is now. */
  async get(id: string, options: WaitOptions = {}): Promise<EventView> {
    return (await this.ask<EventView>({ method: "GET", path: pathOf(id), ...options })).body;
  }

  /** Resolves with the event when it is dead, its runs have ended, or it starts none. */
  async waitFor(id: string, { signal }: WaitOptions = {}): Promise<FinalEvent> {
    let seen = "";
    for (;;) {
      const answer = await this.ask<EventView>({
        method: "GET",
        path: `${pathOf(id)}?wait=${WAIT_SECONDS}`,
        headers: seen ? { "if-none-match": seen } : {},
        timeoutMs: WAIT_SECONDS * 1000 + this.policy.requestTimeoutMs,
        signal,
      });
      if (answer.status === 304) continue;
      seen = answer.headers.get("etag") ?? "";
      if (answer.body.final) return answer.body as FinalEvent;
    }
  }

  /** Yields the event as it is now and after each change, until `waitFor` would resolve. */
  async *watch(id: string, { signal }: WaitOptions = {}): AsyncGenerator<EventView> {
    let last = "";
    for (let failures = 1; ; failures += 1) {
      let failure: unknown = new OutboxConnectionError("The stream has ended.");
      try {
        for await (const data of this.stream(id, signal)) {
          failures = 1;
          if (data === last) continue;
          last = data;
          const view = JSON.parse(data) as EventView;
          yield view;
          if (view.final) return;
        }
      } catch (error) {
        signal?.throwIfAborted();
        if (!(error instanceof TypeError) && !isTransient(error)) throw error;
        failure = error;
      }
      await pause(delayMs(this.policy, failures, failure), signal);
    }
  }

  /** One page of one's own events, newest first. */
  async list(options: ListOptions = {}): Promise<EventPage> {
    const given = Object.entries(options).filter(([, value]) => value !== undefined);
    const query = new URLSearchParams(given.map(([name, value]) => [name, String(value)]));
    return (await this.ask<EventPage>({ method: "GET", path: `/api/events?${query}` })).body;
  }

  /** Takes back an event that was never sent to Inngest. Throws OutboxError `event_left` afterwards. */
  async takeBack(id: string): Promise<void> {
    let isRepeated = false;
    try {
      await this.ask({ method: "DELETE", path: pathOf(id) }, () => (isRepeated = true));
    } catch (error) {
      // A try whose answer was lost may have taken it back.
      if (!isRepeated || !isUnknown(error)) throw error;
    }
  }

  private async *stream(id: string, signal?: AbortSignal): AsyncGenerator<string> {
    const path = `${pathOf(id)}/stream`;
    const headers = { accept: "text/event-stream" };
    const ended = new AbortController();
    const exchange = { method: "GET", path, headers, signal: either(signal, ended.signal) };
    try {
      yield* serverSentData(await within(SILENCE_MS, this.transport.open(exchange)));
    } finally {
      ended.abort();
    }
  }

  private async ask<Body>(exchange: Exchange, repeats?: () => void): Promise<Answer<Body>> {
    const timeoutMs = this.policy.requestTimeoutMs;
    for (let failures = 1; ; failures += 1) {
      try {
        return await this.transport.send<Body>({ timeoutMs, ...exchange });
      } catch (error) {
        if (!isTransient(error)) throw error;
        await pause(delayMs(this.policy, failures, error), exchange.signal);
        repeats?.();
      }
    }
  }
}

function isUnknown(error: unknown): boolean {
  return error instanceof OutboxError && error.code === "not_found";
}

function pathOf(id: string): string {
  return `/api/events/${encodeURIComponent(id)}`;
}

/** The `data` of each server-sent event of a response. Ends with the response. */
async function* serverSentData(answer: Response): AsyncGenerator<string> {
  if (!answer.body) return;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await within(SILENCE_MS, reader.read());
    if (done) return;
    const blocks = (text + value).replaceAll("\r\n", "\n").split("\n\n");
    text = blocks.pop() ?? "";
    yield* blocks.map(dataOf).filter((data) => data !== "");
  }
}

/** The service writes an event as JSON in one line of `data`. */
function dataOf(block: string): string {
  const line = block.split("\n").find((one) => one.startsWith("data:"));
  return line?.slice(5) ?? ""; // JSON may begin with a space
}

function within<T>(ms: number, work: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new TypeError(`Silent for ${ms} ms.`)), ms);
    work.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
