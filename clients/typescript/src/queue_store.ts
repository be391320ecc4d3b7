/** Why the service refused an event that nobody was waiting for. */
export interface Refusal {
  readonly status: number;
  readonly code: string;
  readonly message: string;
}

/** One event that the service has not accepted yet. */
export interface QueueEntry {
  /** The Idempotency-Key. */
  readonly key: string;
  readonly path: string;
  /** The JSON of the body, the same bytes at each try. */
  readonly body: string;
  readonly createdAt: number;
  readonly refusal?: Refusal;
}

/** Where events wait. Every method resolves when the change is durable. */
export interface QueueStore {
  /** Adds the entry, or replaces the one with its key. */
  put(entry: QueueEntry): Promise<void>;
  /** The entry, undefined when there is none. */
  get(key: string): Promise<QueueEntry | undefined>;
  /** Every entry, oldest first. */
  all(): Promise<QueueEntry[]>;
  /** Removes the entry; nothing happens when there is none. */
  remove(key: string): Promise<void>;
}
