import { isTransient, OutboxConnectionError, OutboxError, staysQueued } from "./errors.js";
import { type Release, tryLock } from "./page_lock.js";
import type { QueueEntry, QueueStore, Refusal } from "./queue_store.js";
import { delayMs, pause, type RetryPolicy } from "./retry_policy.js";
import type { components } from "./schema.js";
import type { Transport } from "./transport.js";

/** The service has the event. `replayed` means that it had it before this request. */
export interface Accepted {
  readonly eventId: string;
  readonly replayed: boolean;
}

export interface SubmitOptions {
  /** The Idempotency-Key. Without one, each call makes its own. */
  readonly key?: string;
  /** Ends the wait for the answer. The event stays in the queue and is sent. */
  readonly signal?: AbortSignal;
}

type AcceptedAnswer = components["schemas"]["Accepted"];

interface Waiter {
  readonly accept: (accepted: Accepted) => void;
  readonly refuse: (error: unknown) => void;
}

interface Held {
  readonly entry: QueueEntry;
  readonly release: Release;
  waiter?: Waiter | undefined;
}

/**
 * Sends queued events, one after the other, until the service has answered each.
 * A page holds a lock for each event it sends; an event whose page is gone is taken over.
 */
export class Submissions {
  private readonly held = new Map<string, Held>();
  private readonly closing = new AbortController();
  private running = false;
  private wake: () => void = () => undefined;

  constructor(
    private readonly transport: Transport,
    private readonly store: QueueStore,
    private readonly lockPrefix: string,
    private readonly policy: RetryPolicy,
    private readonly changed: () => void,
  ) {}

  /** Queues one event and resolves when the service has it. */
  async submit(path: string, body: string, options: SubmitOptions = {}): Promise<Accepted> {
    options.signal?.throwIfAborted();
    const entry = { key: options.key ?? newKey(), path, body, createdAt: Date.now() };
    const release = (await tryLock(this.lockPrefix + entry.key)) ?? (() => undefined);
    // Where the browser refuses storage, the event is still sent from this page.
    await this.store.put(entry).catch(() => undefined);
    return new Promise((accept, refuse) => {
      const held: Held = { entry, release, waiter: { accept, refuse } };
      const stopWaiting = (): void => {
        held.waiter = undefined;
        refuse(options.signal?.reason);
      };
      options.signal?.addEventListener("abort", stopWaiting, { once: true });
      this.hold(held);
    });
  }

  /** Takes over the events that no open page holds, and tries at once. */
  async flush(): Promise<void> {
    for (const { key, refusal } of await this.store.all()) {
      if (refusal || this.held.has(key)) continue;
      const release = await tryLock(this.lockPrefix + key);
      if (!release) continue;
      const entry = await this.store.get(key);
      if (entry && !entry.refusal && !this.held.has(key)) this.hold({ entry, release });
      else release();
    }
    this.wake();
  }

  /** Stops sending. What waits stays in the queue. */
  close(): void {
    this.closing.abort();
    for (const { release } of this.held.values()) release();
    this.held.clear();
  }

  private hold(held: Held): void {
    this.held.set(held.entry.key, held);
    this.changed();
    void this.run();
  }

  private async run(): Promise<void> {
    if (this.running) return;
    this.running = true;
    let failures = 0;
    for (const held of this.queued()) {
      try {
        await this.settle(held, await this.send(held.entry));
        failures = 0;
      } catch (error) {
        if (this.closing.signal.aborted) break;
        if (isTransient(error)) {
          this.moveToEnd(held);
          await this.rest(delayMs(this.policy, ++failures, error));
        } else {
          await this.refuse(held, error);
        }
      }
    }
    this.running = false;
  }

  private *queued(): Generator<Held> {
    for (let next = this.first(); next && !this.closing.signal.aborted; next = this.first()) {
      yield next;
    }
  }

  private first(): Held | undefined {
    return this.held.values().next().value;
  }

  /** One event that the service can't take now holds back no other. */
  private moveToEnd(held: Held): void {
    if (this.held.delete(held.entry.key)) this.held.set(held.entry.key, held);
  }

  private rest(ms: number): Promise<void> {
    const woken = (wake: () => void): void => void (this.wake = wake);
    return pause(ms, this.closing.signal, woken).catch(() => undefined);
  }

  private async send(entry: QueueEntry): Promise<Accepted> {
    const { body, headers } = await this.transport.send<Partial<AcceptedAnswer> | null>({
      method: "POST",
      path: entry.path,
      body: entry.body,
      headers: { "idempotency-key": entry.key },
      timeoutMs: this.policy.requestTimeoutMs,
      signal: this.closing.signal,
    });
    if (!body?.eventId) throw new OutboxConnectionError("The answer is not the service's.");
    return { eventId: body.eventId, replayed: headers.get("idempotent-replayed") === "true" };
  }

  private async settle(held: Held, accepted: Accepted): Promise<void> {
    await this.store.remove(held.entry.key).catch(() => undefined);
    this.drop(held);
    held.waiter?.accept(accepted);
  }

  private async refuse(held: Held, error: unknown): Promise<void> {
    const { entry, waiter } = held;
    const kept = staysQueued(error);
    if (!kept && waiter) await this.store.remove(entry.key).catch(() => undefined);
    const refused = { ...entry, refusal: refusalOf(error) };
    // Where the browser refuses storage, the event stays as it is and is tried again.
    if (!kept && !waiter) await this.store.put(refused).catch(() => undefined);
    this.drop(held);
    waiter?.refuse(kept ? error.keptAs(entry.key) : error);
  }

  private drop(held: Held): void {
    this.held.delete(held.entry.key);
    held.release();
    this.changed();
  }
}

function refusalOf(error: unknown): Refusal {
  if (!(error instanceof OutboxError)) return { status: 0, code: "failed", message: String(error) };
  return { status: error.status, code: error.code, message: error.message };
}

function newKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
