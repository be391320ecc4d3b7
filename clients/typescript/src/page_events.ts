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
