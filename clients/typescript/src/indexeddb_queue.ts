import type { QueueEntry, QueueStore } from "./queue_store.js";

const ENTRIES = "entries";

/** A queue in the browser's IndexedDB. It survives a reload, a closed tab and a restart. */
export function indexedDbQueue(name: string): QueueStore {
  let opened: Promise<IDBDatabase> | undefined;

  async function act<T>(
    mode: IDBTransactionMode,
    work: (entries: IDBObjectStore) => IDBRequest<T>,
  ): Promise<T> {
    opened ??= open(name);
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

function open(name: string): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(name, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(ENTRIES, { keyPath: "key" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

function finished<T>(transaction: IDBTransaction, request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(request.result);
    transaction.onerror = () => reject(transaction.error);
    transaction.onabort = () => reject(transaction.error);
  });
}
