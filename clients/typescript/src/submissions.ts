import { type AcceptedEvent, type AcceptedEvents, MACHINE_PATH } from "./api.js";
import { isTransient, OutboxConnectionError, type OutboxError, staysQueued } from "./errors.js";
import { type Release, tryLock } from "./page.js";
import type { QueueEntry, QueueStore } from "./queue.js";
import { delayMs, pause, type RetryPolicy } from "./retry.js";
import type { Transport } from "./transport.js";

/** The service has the event. `replayed` means that it had it before this request. */
export interface Accepted {
  readonly eventId: string;
  readonly replayed: boolean;
}

export interface SubmitOptions {
  /** The Idempotency-Key, or a machine's event id. Without one, each call makes its own. */
  readonly key?: string;
  /** Ends the wait for the answer. The event stays in the queue and is sent. */
  readonly signal?: AbortSignal;
}

interface Waiter {
  readonly accept: (accepted: Accepted) => void;
  readonly refuse: (error: unknown) => void;
}

interface Held {
  readonly entry: QueueEntry;
  readonly release: Release;
  waiter?: Waiter | undefined;
  isSending?: boolean;
  /** The request that it shared with others was refused. */
  isSuspect?: boolean;
}

/** Requests side by side. A browser opens six connections to a host, and the page needs some. */
const LANES = 4;
const MAX_SHARED_EVENTS = 100;
const MAX_SHARED_CHARACTERS = 500_000;

/**
 * Sends queued events until the service has answered each: several requests side by side, one
 * alone after a failure.
 * A page holds a lock for each event it sends; an event whose page is gone is taken over.
 */
export class Submissions {
  private readonly held = new Set<Held>();
  private readonly closing = new AbortController();
  private lanes = 0;
  private failures = 0;
  private restUntil = 0;
  private wake: () => void = () => undefined;

  constructor(
    private readonly transport: Transport,
    private readonly store: QueueStore,
    private readonly lockPrefix: string,
    private readonly policy: RetryPolicy,
    private readonly changed: () => void,
  ) {}

  /** Queues one event and resolves when the service has it. */
  async submit(path: string, body: unknown, options: SubmitOptions = {}): Promise<Accepted> {
    const { signal } = options;
    signal?.throwIfAborted();
    const key = options.key ?? newKey();
    new Headers({ "idempotency-key": key }); // a key that no header takes would be tried for ever
    const entry = { key, path, body: bytesOf(path, body, key), createdAt: Date.now() };
    const release = (await tryLock(this.lockPrefix + key)) ?? (() => undefined);
    // Where the browser refuses storage, the event is still sent from this page.
    await this.store.put(entry).catch(() => undefined);
    const held: Held = { entry, release };
    const stopWaiting = (): void => {
      held.waiter?.refuse(signal?.reason);
      held.waiter = undefined;
    };
    signal?.addEventListener("abort", stopWaiting);
    const answer = new Promise<Accepted>((accept, refuse) => (held.waiter = { accept, refuse }));
    if (signal?.aborted) stopWaiting();
    this.hold(held);
    return answer.finally(() => signal?.removeEventListener("abort", stopWaiting));
  }

  /** Takes over the events that no open page holds, and tries at once. */
  async flush(): Promise<void> {
    for (const { key } of await this.store.all().catch(() => [])) await this.takeOver(key);
    this.wake();
  }

  /** Stops sending. What waits stays in the queue. */
  close(): void {
    this.closing.abort();
    for (const { release } of this.held) release();
    this.held.clear();
  }

  private async takeOver(key: string): Promise<void> {
    const release = await tryLock(this.lockPrefix + key);
    if (!release) return;
    const entry = await this.store.get(key).catch(() => undefined);
    if (entry && !entry.refusal && !this.isHeld(key)) this.hold({ entry, release });
    else release();
  }

  private isHeld(key: string): boolean {
    for (const { entry } of this.held) if (entry.key === key) return true;
    return false;
  }

  private hold(held: Held): void {
    if (this.closing.signal.aborted) return held.release();
    this.held.add(held);
    this.changed();
    this.spread();
  }

  private spread(): void {
    const trouble = this.failures > 0 || this.restMs() > 0;
    while (this.lanes < (trouble ? 1 : LANES) && this.waiting().next().value) {
      this.lanes += 1;
      void this.lane();
    }
  }

  private async lane(): Promise<void> {
    await undefined; // events of one turn share a request
    for (let batch = this.take(); batch.length; batch = this.take()) {
      await this.deliver(batch);
      if (this.restMs() > 0 && this.lanes > 1) break;
      await this.rest();
      this.spread();
    }
    this.lanes -= 1;
  }

  private *waiting(): Generator<Held> {
    for (const held of this.held) if (!held.isSending) yield held;
  }

  /** The events of the next request, marked as under way. */
  private take(): Held[] {
    const batch: Held[] = [];
    let room = MAX_SHARED_CHARACTERS;
    for (const held of this.waiting()) {
      const { length } = held.entry.body;
      if (batch.length && (length > room || !mayShare(held))) continue;
      room -= length;
      batch.push(held);
      held.isSending = true;
      if (!mayShare(held) || batch.length === MAX_SHARED_EVENTS) break;
    }
    return batch;
  }

  private async deliver(batch: Held[]): Promise<void> {
    try {
      const accepted = await this.send(batch.map((held) => held.entry));
      await Promise.all(batch.map((held, place) => this.settle(held, accepted[place]!)));
      this.failures = 0;
    } catch (error) {
      if (this.closing.signal.aborted) return;
      if (isTransient(error)) this.failed(batch, error);
      else if (batch.length > 1 && !staysQueued(error)) this.putBack(batch, true);
      else await Promise.all(batch.map((held) => this.refuse(held, error as OutboxError)));
    }
  }

  private failed(batch: Held[], error: unknown): void {
    // Requests side by side that fail together are one failure.
    if (this.restMs() <= 0) this.failures += 1;
    const until = performance.now() + delayMs(this.policy, this.failures, error);
    this.restUntil = Math.max(this.restUntil, until);
    this.putBack(batch);
  }

  /** At the end: events that the service can't take now hold back no other. */
  private putBack(batch: Held[], areSuspect = false): void {
    for (const held of batch) {
      held.isSending = false;
      held.isSuspect ||= areSuspect;
      this.held.delete(held);
      this.held.add(held);
    }
  }

  private restMs(): number {
    return this.restUntil - performance.now();
  }

  private async rest(): Promise<void> {
    const woken = (wake: () => void): void => void (this.wake = wake);
    const ms = this.restMs();
    if (ms > 0) await pause(ms, this.closing.signal, woken);
    this.restUntil = 0;
  }

  private async send(entries: QueueEntry[]): Promise<Accepted[]> {
    const [{ path, key, body: first }] = entries as [QueueEntry];
    const isShared = path === MACHINE_PATH;
    const answer = await this.transport.send<Partial<AcceptedEvent & AcceptedEvents> | null>({
      method: "POST",
      path,
      body: isShared ? `[${entries.map(({ body }) => body).join(",")}]` : first,
      headers: isShared ? {} : { "idempotency-key": key },
      timeoutMs: this.policy.requestTimeoutMs,
      signal: this.closing.signal,
    });
    const ids = answer.body?.eventIds ?? [answer.body?.eventId];
    const replayed = answer.headers.get("idempotent-replayed") === "true";
    return entries.map((_, place) => {
      const eventId = ids[place];
      if (!eventId) throw new OutboxConnectionError("The answer is not the service's.");
      return { eventId, replayed };
    });
  }

  private async settle(held: Held, accepted: Accepted): Promise<void> {
    await this.store.remove(held.entry.key).catch(() => undefined);
    this.drop(held);
    held.waiter?.accept(accepted);
  }

  private async refuse(held: Held, error: OutboxError): Promise<void> {
    const { entry, waiter } = held;
    const { status, code, message } = error;
    const kept = staysQueued(error);
    if (!kept && waiter) await this.store.remove(entry.key).catch(() => undefined);
    const refused = { ...entry, refusal: { status, code, message } };
    // Where the browser refuses storage, the event stays as it is and is tried again.
    if (!kept && !waiter) await this.store.put(refused).catch(() => undefined);
    this.drop(held);
    waiter?.refuse(kept ? error.keptAs(entry.key) : error);
  }

  private drop(held: Held): void {
    this.held.delete(held);
    held.release();
    this.changed();
  }
}

function mayShare({ entry, isSuspect }: Held): boolean {
  return entry.path === MACHINE_PATH && !isSuspect;
}

/** A machine's event needs an id: only by its id is a repeat among others known. */
function bytesOf(path: string, body: unknown, key: string): string {
  if (path !== MACHINE_PATH) return JSON.stringify(body);
  const event = body as { id?: string | null };
  return JSON.stringify({ ...event, id: event.id || key });
}

function newKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
