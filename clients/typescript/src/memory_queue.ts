import type { QueueEntry, QueueStore } from "./queue_store.js";

/** A queue that lives as long as the process. */
export function memoryQueue(): QueueStore {
  const entries = new Map<string, QueueEntry>();
  return {
    put: async (entry) => void entries.set(entry.key, entry),
    get: async (key) => entries.get(key),
    all: async () => [...entries.values()].sort((one, other) => one.createdAt - other.createdAt),
    remove: async (key) => void entries.delete(key),
  };
}
