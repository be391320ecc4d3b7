import assert from "node:assert/strict";
import { mock } from "node:test";

/** Lets everything happen that waits for no timer. */
export const settled = async () => {
  for (let turn = 0; turn < 5; turn += 1) await new Promise((resolve) => setImmediate(resolve));
};

/** Waits for a fact that no timer brings; it fails after 1,000 turns. */
export const until = async (fact) => {
  for (let turn = 0; turn < 200; turn += 1) {
    if (await fact()) return;
    await settled();
  }
  assert.fail("It did not come.");
};

export const accepted = (eventId, headers) => Response.json({ status: "ok", eventId }, { headers });

export const refused = (status, code, headers) =>
  Response.json({ status: "error", code, error: "Refused." }, { status, headers });

/** A `fetch` that keeps its requests and answers each by `answer(request, place)`. */
export function service(answer) {
  const requests = [];
  const fetch = async (url, { method, headers, body, signal }) => {
    const request = { method, url, headers, body: body && JSON.parse(body) };
    signal?.throwIfAborted();
    requests.push(request);
    return answer(request, requests.length - 1, signal);
  };
  return { requests, fetch };
}

/** Stops the clock of delays, which are then as long as they may be. `pass` lets time pass. */
export function stoppedClock() {
  mock.timers.enable({ apis: ["setTimeout"] });
  mock.method(Math, "random", () => 1);
  return async (ms) => {
    mock.timers.tick(ms);
    await settled();
  };
}

const held = new Set();

/** Web Locks as a browser has them, and those that are held by now. */
export function webLocks() {
  const request = async (name, { ifAvailable }, hold) => {
    if (held.has(name)) return ifAvailable ? hold(null) : new Promise(() => undefined);
    held.add(name);
    await hold({ name });
    held.delete(name);
  };
  Object.defineProperty(globalThis, "navigator", { value: { locks: { request } }, configurable: true });
  return held;
}

/** Ends the pages of a test, which keep no lock, and its clock. */
export async function end(pages) {
  pages.forEach((one) => one.close());
  await settled();
  assert.deepEqual([...held], []);
  delete globalThis.navigator;
  mock.restoreAll();
  mock.timers.reset();
}

/** A visible page of a browser, until `leave`; `comeBack` is the network's return. */
export function openPage() {
  const page = new EventTarget();
  globalThis.document = Object.assign(new EventTarget(), { visibilityState: "visible" });
  globalThis.addEventListener = page.addEventListener.bind(page);
  globalThis.removeEventListener = page.removeEventListener.bind(page);
  return {
    comeBack: () => page.dispatchEvent(new Event("online")),
    leave: () => {
      delete globalThis.document;
      delete globalThis.addEventListener;
      delete globalThis.removeEventListener;
    },
  };
}
