import { isTransient, OutboxConnectionError } from "./errors.js";
import { delayMs, pause, type RetryPolicy } from "./retry_policy.js";
import type { components, operations } from "./schema.js";
import { serverSentData } from "./server_sent_events.js";
import type { Answer, Exchange, Transport } from "./transport.js";

export type EventView = components["schemas"]["EventView"];
export type EventPage = components["schemas"]["EventPage"];
export type ListOptions = NonNullable<operations["listEvents"]["parameters"]["query"]>;

export interface WaitOptions {
  /** Ends the wait; the promise or the iteration then rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

const WAIT_SECONDS = 30;

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

  /** Resolves with the event when nothing more will happen to it: its run has ended, or it is dead. */
  async waitFor(id: string, { signal }: WaitOptions = {}): Promise<EventView> {
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
      if (answer.body.final) return answer.body;
    }
  }

  /** Yields the event as it is now and after each change, until nothing more will happen to it. */
  async *watch(id: string, { signal }: WaitOptions = {}): AsyncGenerator<EventView> {
    let last = "";
    for (let failures = 1; ; failures += 1) {
      let failure: unknown = new OutboxConnectionError("The stream has ended.");
      try {
        for await (const data of this.stream(id, signal)) {
          failures = 0;
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
      await pause(delayMs(this.policy, Math.max(failures, 1), failure), signal);
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
    await this.ask({ method: "DELETE", path: pathOf(id) });
  }

  private async *stream(id: string, signal?: AbortSignal): AsyncGenerator<string> {
    const path = `${pathOf(id)}/stream`;
    const headers = { accept: "text/event-stream" };
    yield* serverSentData(await this.transport.open({ method: "GET", path, headers, signal }));
  }

  private async ask<Body>(exchange: Exchange): Promise<Answer<Body>> {
    const timeoutMs = this.policy.requestTimeoutMs;
    for (let failures = 1; ; failures += 1) {
      try {
        return await this.transport.send<Body>({ timeoutMs, ...exchange });
      } catch (error) {
        if (!isTransient(error)) throw error;
        await pause(delayMs(this.policy, failures, error), exchange.signal);
      }
    }
  }
}

function pathOf(id: string): string {
  return `/api/events/${encodeURIComponent(id)}`;
}
