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

/** A queue that lives as long as the process. */
export function memoryQueue(): QueueStore {
  const entries = new Map<string, QueueEntry>();
  return {
    put: async (entry) => void entries.set(entry.key, entry),
    get: async (key) => entries.get(key),
    all: async () => [...entries.values()],
    remove: async (key) => void entries.delete(key),
  };
}

const ENTRIES = "entries";

/** A queue in the browser's IndexedDB. It survives a reload, a closed tab and a restart. */
export function indexedDbQueue(name: string): QueueStore {
  let opened: Promise<IDBDatabase> | undefined;

  async function act<T>(
    mode: IDBTransactionMode,
    work: (entries: IDBObjectStore) => IDBRequest<T>,
  ): Promise<T> {
    opened ??= open(name, () => (opened = undefined));
    const database = await opened.catch((error: unknown) => {
      opened = undefined;
      throw error;
    });
    const transaction = database.transaction(ENTRIES, mode, { durability: "strict" });
    return finished(transaction, work(transaction.objectStore(ENTRIES)));
  }

  return {
    put: async (entry) => void (await act("readwrite", (entries) => entries.put(entry))),
    get: (key) => act<QueueEntry | undefined>("readonly", (entries) => entries.get(key)),
    all: async () => {
      const found = await act<QueueEntry[]>("readonly", (entries) => entries.getAll());
      return found.sort((one, other) => one.createdAt - other.createdAt);
    },
    remove: async (key) => void (await act("readwrite", (entries) => entries.delete(key))),
  };
}

/** `closed` is called when the browser closes it, as when it clears the site's data. */
function open(name: string, closed: () => void): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(name, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(ENTRIES, { keyPath: "key" });
    request.onsuccess = () => {
      request.result.onclose = closed;
      resolve(request.result);
    };
    request.onerror = () => reject(request.error);
  });
}

function finished<T>(transaction: IDBTransaction, request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(request.result);
    transaction.onabort = () => reject(transaction.error);
  });
}
