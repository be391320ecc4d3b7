import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { mock, test } from "node:test";
import { memoryQueue, OutboxClient } from "inngest-outbox-client";
import { accepted, openPage, refused, service, settled, webLocks } from "./service.mjs";

const BODY = { documentName: "a" };
const TEAPOT = "The server answered 418.";
const html = (status, headers) =>
  new Response("<h1>Sign in to the network</h1>", { status, headers });
const quick = (answer) => {
  const { requests, fetch } = service(answer);
  const outbox = new OutboxClient({ fetch, retry: { firstDelayMs: 1, maxDelayMs: 1 } });
  return { requests, outbox };
};

test("a request is repeated with its key and bytes until the service answers", async () => {
  const away = [408, 425, 429, 500, 502, 503, 504].map((status) => () => refused(status, "x"));
  const empty = [{}, null].map((body) => () => Response.json(body));
  const others = [() => html(200), () => html(502), ...empty, () => Promise.reject(new TypeError("reset"))];
  const tries = [...away, ...others, () => accepted("e", { "idempotent-replayed": "true" })];
  const { requests, outbox } = quick((_, place) => tries[place]());
  const { signal } = new AbortController();
  const told = await outbox.submit(BODY, { key: "k", signal });
  assert.deepEqual(told, { eventId: "e", replayed: true });
  assert.equal(getEventListeners(signal, "abort").length, 0);
  assert.equal(requests.length, tries.length);
  for (const { method, url, headers, body } of requests) {
    assert.deepEqual([method, url, body], ["POST", "/api/route", BODY]);
    assert.equal(headers.get("idempotency-key"), "k");
    assert.equal(headers.get("content-type"), "application/json");
  }
  assert.deepEqual(await outbox.queued(), []);
});

test("a refusal rejects with its code and leaves the queue", async () => {
  const headers = { "x-request-id": "r" };
  for (const [status, code] of [
    [400, "invalid_field"],
    [403, "sender_not_allowed"],
    [409, "idempotency_key_reused"],
    [501, "internal_error"],
    [503, "storage_not_configured"],
  ]) {
    const { requests, outbox } = quick(() => refused(status, code, headers));
    const told = { name: "OutboxError", status, code, message: "Refused.", requestId: "r" };
    Object.assign(told, { queuedAs: undefined, retryAfterSeconds: undefined });
    const { signal } = new AbortController();
    await assert.rejects(outbox.submit(BODY, { signal }), told);
    assert.equal(getEventListeners(signal, "abort").length, 0);
    assert.deepEqual([requests.length, await outbox.queued()], [1, []]);
  }
});

test("an event stays queued where a sign-in or a proxy is between", async () => {
  const date = { "retry-after": "Wed, 25 Nov 2026 07:28:00 GMT", "x-request-id": "r" };
  const seconds = { ...date, "retry-after": "5" };
  for (const [answer, code, message, retryAfterSeconds] of [
    [refused(401, "session_required", seconds), "session_required", "Refused.", 5],
    [html(403, date), "http_403", "The server answered 403."],
    [Response.json({ code: 1, error: {} }, { status: 418, headers: date }), "http_418", TEAPOT],
  ]) {
    const { outbox } = quick(() => answer);
    const before = Date.now();
    const { status } = answer;
    const told = { status, code, message, retryAfterSeconds, requestId: "r", queuedAs: "k" };
    await assert.rejects(outbox.submit(BODY, { key: "k" }), told);
    const [{ key, refusal, createdAt }] = await outbox.queued();
    assert.ok(before <= createdAt && createdAt <= Date.now()); // pages sort by it
    assert.deepEqual([key, refusal], ["k", undefined]);
    await outbox.forget("k");
    assert.deepEqual(await outbox.queued(), []);
  }
});

test("a wait for the answer may be given up, and a refusal stays to be seen", async () => {
  for (const begun of [settled, () => undefined]) {
    const answers = [];
    const { outbox } = quick(() => new Promise((answer) => answers.push(answer)));
    const given = new AbortController();
    const posted = outbox.submit(BODY, { signal: given.signal });
    await begun();
    given.abort(new Error("no time"));
    await assert.rejects(posted, /no time/);
    await assert.rejects(outbox.submit(BODY, { signal: given.signal }), /no time/);
    await settled();
    assert.equal((await outbox.queued()).length, 1);
    answers[0](refused(400, "invalid_field"));
    await settled();
    assert.equal((await outbox.queued())[0].refusal.code, "invalid_field");
  }
});

test("no redirect is followed, no answer cached, and cookies go to another origin too", async () => {
  const seen = [];
  const fetch = async (url, { redirect, cache, credentials }) => {
    seen.push([url, redirect, cache, credentials]);
    return accepted("e");
  };
  await new OutboxClient({ fetch }).submit(BODY);
  await new OutboxClient({ fetch, baseUrl: "https://o" }).submit(BODY);
  assert.deepEqual(seen, [
    ["/api/route", "error", "no-store", "same-origin"],
    ["https://o/api/route", "error", "no-store", "include"],
  ]);
});

test("a request ends by its signal and its time, also where a browser has no AbortSignal.any", async (t) => {
  const { any } = AbortSignal;
  t.after(() => ((AbortSignal.any = any), mock.restoreAll()));
  const ends = [];
  mock.method(AbortSignal, "timeout", () => (ends.unshift(new AbortController()), ends[0].signal));
  const hangs = (signal) =>
    new Promise((_, refuse) => signal.addEventListener("abort", () => refuse(signal.reason)));
  for (AbortSignal.any of [any, undefined]) {
    for (const isGiven of [true, false]) {
      const given = new AbortController();
      const { requests, outbox } = quick((_, place, signal) => (place ? view : hangs(signal)));
      const view = Response.json({ final: true });
      const waited = outbox.waitFor("e", { signal: given.signal });
      await settled();
      (isGiven ? given : ends[0]).abort(new Error("no time"));
      if (!isGiven) assert.deepEqual([await waited, requests.length], [{ final: true }, 2]);
      else await assert.rejects(waited, /no time/);
      given.abort(new Error("too late"));
      await assert.rejects(outbox.get("e", { signal: given.signal }), isGiven ? /no time/ : /too late/);
    }
  }
});

test("events are listed, taken back and looked at by their paths", async () => {
  const timeout = mock.method(AbortSignal, "timeout");
  const { requests, outbox } = quick(({ method }, place) => {
    if (place === 0) return html(200);
    return method === "DELETE" ? new Response(null, { status: 204 }) : Response.json({});
  });
  await outbox.list({ state: "dead", since: 0, limit: 5, name: "a/b", cursor: undefined });
  await outbox.takeBack("a/b");
  await outbox.get("a");
  assert.deepEqual(requests.map(({ method, url }) => `${method} ${url}`), [
    ...Array(2).fill("GET /api/events?state=dead&since=0&limit=5&name=a%2Fb"),
    "DELETE /api/events/a%2Fb",
    "GET /api/events/a",
  ]);
  assert.ok(requests.every(({ headers }) => !headers.has("content-type"))); // there is no body
  assert.deepEqual(timeout.mock.calls.map(({ arguments: [ms] }) => ms), Array(4).fill(30_000));
  timeout.mock.restore();
});

test("listeners hear each change of the queue, until they stop", async () => {
  const { outbox } = quick(() => accepted("e"));
  const lengths = [];
  let others = 0;
  const stop = outbox.onQueueChange(async () => lengths.push((await outbox.queued()).length));
  outbox.onQueueChange(() => (others += 1));
  await outbox.submit(BODY);
  await settled();
  await outbox.forget("k");
  await settled();
  assert.deepEqual(lengths, [1, 0, 0]);
  stop();
  await outbox.submit(BODY);
  await settled();
  assert.deepEqual([lengths.length, others], [3, 5]);
});

test("a listener that throws ends no sending and takes no change from the others", async (t) => {
  const told = t.mock.method(console, "error", () => {});
  const { requests, outbox } = quick(() => accepted("e"));
  let changes = 0;
  outbox.onQueueChange(() => {
    throw new Error("a fault of the page");
  });
  outbox.onQueueChange(() => (changes += 1));
  for (let n = 0; n < 5; n += 1) assert.equal((await outbox.submit(BODY)).eventId, "e");
  assert.deepEqual([requests.length, changes, told.mock.callCount()], [5, 10, 10]);
});

test("a closed client sends nothing and leaves what waits to the next", async () => {
  const held = webLocks();
  const queue = memoryQueue();
  let sending;
  const { requests, fetch } = service((_, __, signal) => new Promise(() => void (sending = signal)));
  const closed = new OutboxClient({ fetch, queue });
  for (const name of ["a", "b"]) void closed.submit({ documentName: name });
  await settled();
  closed.close();
  await closed.flush();
  await settled();
  assert.deepEqual([requests.length, held.size, sending.aborted], [2, 0, true]);
  const next = new OutboxClient({ fetch: async () => accepted("e"), queue });
  await next.flush();
  await settled();
  assert.deepEqual(await next.queued(), []);
  delete globalThis.navigator;
});

test("an open client looks for what is left when its page returns, a closed one does not", async () => {
  mock.timers.enable({ apis: ["setInterval"] });
  const page = openPage();
  document.visibilityState = "hidden";
  const queue = memoryQueue();
  let looks = 0;
  const { all } = queue;
  queue.all = () => ((looks += 1), all());
  const outbox = new OutboxClient({ queue });
  await settled();
  assert.equal(looks, 1);
  document.visibilityState = "visible";
  page.comeBack();
  document.dispatchEvent(new Event("visibilitychange"));
  assert.equal(looks, 3);
  mock.timers.tick(30_000);
  assert.equal(looks, 4);
  document.visibilityState = "hidden";
  mock.timers.tick(30_000);
  document.dispatchEvent(new Event("visibilitychange"));
  assert.equal(looks, 4);
  page.comeBack(); // a hidden page too sends what waited for the network
  assert.equal(looks, 5);
  document.visibilityState = "visible";
  outbox.close();
  page.comeBack();
  document.dispatchEvent(new Event("visibilitychange"));
  mock.timers.tick(30_000);
  assert.equal(looks, 5);
  page.leave();
  mock.timers.reset();
});

test("the pages of an account hear each other until they close", async () => {
  const page = openPage();
  const heard = [];
  const open = (name, account) => {
    const outbox = new OutboxClient({ account });
    const told = new Promise((hear) => {
      outbox.onQueueChange(() => hear(heard.push(name)));
    });
    return { outbox, told };
  };
  const [other, closed, hearing, telling] = [
    open("other", "bob"),
    open("closed", "ada"),
    open("hearing", "ada"),
    open("telling", "ada"),
  ];
  closed.outbox.close();
  await telling.outbox.forget("k");
  await hearing.told;
  for (let turn = 0; turn < 10; turn += 1) await settled();
  assert.deepEqual(heard, ["telling", "hearing"]);
  for (const { outbox } of [other, hearing, telling]) outbox.close();
  page.leave();
});
