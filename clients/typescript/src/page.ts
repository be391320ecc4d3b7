const EVERY_MS = 30_000;

/**
 * Calls `act` now, when the network or the page's visibility comes back, and every 30 s while the
 * page is visible. Returns how to stop it. Outside a browser it does nothing.
 */
export function onReturn(act: () => void): () => void {
  if (!globalThis.document) return () => undefined;
  const whenVisible = (): void => {
    if (document.visibilityState === "visible") act();
  };
  const timer = setInterval(whenVisible, EVERY_MS);
  addEventListener("online", act);
  document.addEventListener("visibilitychange", whenVisible);
  queueMicrotask(act);
  return () => {
    clearInterval(timer);
    removeEventListener("online", act);
    document.removeEventListener("visibilitychange", whenVisible);
  };
}

/** Tells the other pages of this origin, and hears them. */
export interface Broadcast {
  tell(): void;
  close(): void;
}

/** Calls `heard` when another page tells a change under `name`. Outside a browser nobody does. */
export function broadcast(name: string, heard: () => void): Broadcast {
  if (!globalThis.document) return { tell: () => undefined, close: () => undefined };
  const channel = new BroadcastChannel(name);
  channel.onmessage = heard;
  return { tell: () => channel.postMessage(null), close: () => channel.close() };
}

/** Ends the hold on a lock. */
export type Release = () => void;

/**
 * Takes the lock `name` among all pages of this origin, without waiting.
 * Returns undefined when another page holds it. The browser ends the hold with the page.
 * Where the Web Locks API is missing (in Node, on an insecure origin) or refuses (in a sandbox) every
 * call succeeds; two pages may then send one event at the same time, and its Idempotency-Key keeps it
 * a single event.
 */
export function tryLock(name: string): Promise<Release | undefined> {
  const locks = globalThis.navigator?.locks;
  if (!locks) return Promise.resolve(() => undefined);
  return new Promise((resolve) => {
    const hold = (lock: Lock | null): Promise<void> | undefined => {
      if (lock) return new Promise((release) => resolve(release));
      resolve(undefined);
      return undefined;
    };
    locks.request(name, { ifAvailable: true }, hold).catch(() => resolve(() => undefined));
  });
}
