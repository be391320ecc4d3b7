/** Ends the hold on a lock. */
export type Release = () => void;

/**
 * Takes the lock `name` among all pages of this origin, without waiting.
 * Returns undefined when another page holds it. The browser ends the hold with the page.
 * Where the Web Locks API is missing (in Node, on an insecure origin) every call succeeds; two pages
 * may then send one event at the same time, and its Idempotency-Key keeps it a single event.
 */
export function tryLock(name: string): Promise<Release | undefined> {
  const locks = globalThis.navigator?.locks;
  if (!locks) return Promise.resolve(() => undefined);
  return new Promise((resolve, reject) => {
    const hold = (lock: Lock | null): Promise<void> | undefined => {
      if (lock) return new Promise((release) => resolve(release));
      resolve(undefined);
      return undefined;
    };
    locks.request(name, { ifAvailable: true }, hold).catch(reject);
  });
}
