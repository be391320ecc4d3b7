import assert from "node:assert/strict";
import { afterEach, mock, test } from "node:test";
import { memoryQueue, OutboxClient } from "inngest-outbox-client";
import { accepted, end, refused, service, settled, stoppedClock, webLocks } from "./service.mjs";

const RETRY = { firstDelayMs: 100, maxDelayMs: 200 };
const nameOf = ({ body }) => body.documentName;
const left = { key: "k", path: "/api/route", body: '{"documentName":"left"}', createdAt: 1 };
const clients = [];

function client(options) {
  clients.push(new OutboxClient({ retry: RETRY, ...options }));
  return clients.at(-1);
}

function submit(outbox, ...names) {
  return names.map((documentName) => outbox.submit({ documentName }));
}

afterEach(() => end(clients.splice(0)));

test("four requests are under way side by side", async () => {
  const answers = [];
  const { requests, fetch } = service(() => new Promise((answer) => answers.push(answer)));
  const all = submit(client({ fetch }), "1", "2", "3", "4", "5", "6");
  await settled();
  assert.deepEqual(requests.map(nameOf), ["1", "2", "3", "4"]);
  answers[2](accepted("e-3", { "idempotent-replayed": "false" }));
  assert.deepEqual(await all[2], { eventId: "e-3", replayed: false });
  await settled();
  assert.deepEqual(requests.map(nameOf), ["1", "2", "3", "4", "5"]);
  const queue = memoryQueue();
  for (const key of ["a", "b", "c", "d", "e"]) await queue.put({ ...left, key });
  await client({ fetch, queue }).flush();
  await settled();
  assert.equal(requests.length, 9); // what an earlier page left goes so too
});

test("in an outage one request at a time is tried, and all go side by side after it", async () => {
  const pass = stoppedClock();
  const answers = [];
  const { requests, fetch } = service((_, place) => {
    if (place < 5) throw new TypeError("fetch failed");
    return new Promise((answer) => answers.push(answer));
  });
  submit(client({ fetch }), "1", "2", "3", "4", "5", "6");
  await settled();
  assert.equal(requests.length, 4);
  await pass(100);
  assert.equal(requests.length, 5);
  await pass(200);
  assert.equal(requests.length, 6);
  answers[0](accepted("e"));
  await settled();
  assert.equal(requests.length, 10);
});

test("events that the service can't take hold back no other", async () => {
  const { fetch } = service(({ body: { documentName } }) =>
    documentName === "bad" ? refused(500, "internal_error") : accepted(documentName),
  );
  const outbox = client({ fetch, retry: { firstDelayMs: 1, maxDelayMs: 1 } });
  submit(outbox, "bad", "bad", "bad", "bad");
  const ids = (await Promise.all(submit(outbox, "1", "2"))).map(({ eventId }) => eventId);
  assert.deepEqual(ids, ["1", "2"]);
  const bad = (await outbox.queued()).map(({ body }) => body);
  assert.deepEqual(bad, Array(4).fill('{"documentName":"bad"}'));
});

test("delays grow with failures in a row to a limit, and begin again after an answer", async () => {
  const pass = stoppedClock();
  const { requests, fetch } = service((_, place) =>
    [3, 5].includes(place) ? accepted("e") : refused(500, "internal_error"),
  );
  const outbox = client({ fetch });
  void outbox.submit({ documentName: "1" });
  await settled();
  await pass(100);
  assert.equal(requests.length, 2);
  await pass(100);
  assert.equal(requests.length, 2);
  await pass(100);
  assert.equal(requests.length, 3);
  await pass(200);
  assert.equal(requests.length, 4);
  void outbox.submit({ documentName: "2" });
  await settled();
  assert.equal(requests.length, 5);
  await pass(100);
  assert.equal(requests.length, 6);
});

test("nothing is sent before Retry-After, in seconds", async () => {
  const pass = stoppedClock();
  const answers = [
    refused(429, "too_many_pending", { "retry-after": "60" }),
    refused(500, "internal_error"),
    accepted("e"),
    accepted("e"),
  ];
  const { requests, fetch } = service((_, place) => answers[place]);
  const retry = { firstDelayMs: 20_000, maxDelayMs: 20_000 };
  const all = submit(client({ fetch, retry }), "1", "2");
  await settled();
  await pass(70_000); // clients that were told the same time do not come together
  assert.equal(requests.length, 2);
  await pass(10_000);
  await Promise.all(all);
});

test("nothing new is sent before Retry-After, though another request was answered", async () => {
  const pass = stoppedClock();
  const answers = [];
  const { requests, fetch } = service(() => new Promise((answer) => answers.push(answer)));
  const outbox = client({ fetch });
  submit(outbox, "1", "2");
  await settled();
  answers[0](refused(429, "rate_limited", { "retry-after": "60" }));
  await settled();
  answers[1](accepted("e-2"));
  await settled();
  submit(outbox, "3");
  await settled();
  assert.equal(requests.length, 2);
  await pass(60_100);
  assert.deepEqual(requests.map(nameOf), ["1", "2", "1", "3"]);
});

test("clients that failed together do not come again together", async () => {
  const pass = stoppedClock();
  mock.method(Math, "random", () => 0.25);
  const { requests, fetch } = service(() => refused(503, "outbox_unavailable"));
  submit(client({ fetch }), "1");
  await settled();
  await pass(25);
  assert.equal(requests.length, 2);
});

test("by default pauses grow from 250 ms to 30 s, and a request has 30 s", async () => {
  const pass = stoppedClock();
  const timeout = mock.method(AbortSignal, "timeout");
  const { requests, fetch } = service(() => refused(503, "outbox_unavailable"));
  submit(client({ fetch, retry: undefined }), "1");
  await settled();
  for (const ms of [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]) {
    const before = requests.length;
    await pass(ms * 0.7); // the clock that it reads goes on meanwhile
    assert.equal(requests.length, before);
    await pass(ms * 0.3);
    assert.equal(requests.length, before + 1);
  }
  assert.ok(timeout.mock.calls.every(({ arguments: [ms] }) => ms === 30_000));
});

test("a request without an answer is given up and tried again", async () => {
  const { requests, fetch } = service((_, place, signal) => {
    if (place) return accepted("e");
    return new Promise((_, lose) => signal.addEventListener("abort", () => lose(signal.reason)));
  });
  const retry = { firstDelayMs: 1, requestTimeoutMs: 20 };
  const running = setInterval(() => undefined, 10); // the timeout alone does not keep Node running
  await client({ fetch, retry }).submit({ documentName: "1" });
  clearInterval(running);
  assert.equal(requests.length, 2);
});

test("an answer to an event that storage does not let go counts all the same", async () => {
  const queue = { ...memoryQueue(), remove: () => Promise.reject(new Error("no storage")) };
  const { fetch } = service((_, place) => (place ? accepted("e") : refused(400, "invalid_field")));
  const outbox = client({ fetch, queue });
  await assert.rejects(outbox.submit({ documentName: "1" }), { code: "invalid_field" });
  assert.equal((await outbox.submit({ documentName: "2" })).eventId, "e");
});

test("an answer counts, and is heard, once storage has it", async () => {
  const queue = memoryQueue();
  await queue.put(left);
  const { remove } = queue;
  let store;
  queue.remove = (key) => new Promise((stored) => (store = () => stored(remove(key))));
  const { fetch } = service((_, place) => (place ? refused(400, "invalid_field") : accepted("e")));
  const outbox = client({ fetch, queue });
  const ends = [];
  for (const before of [[], ["e"]]) {
    const posted = outbox.submit({ documentName: "1" });
    void posted.then(({ eventId }) => ends.push(eventId), ({ code }) => ends.push(code));
    await settled();
    assert.deepEqual(ends, before);
    store();
    await settled();
  }
  assert.deepEqual(ends, ["e", "invalid_field"]);
  queue.put = () => new Promise((stored) => (store = stored));
  await outbox.flush();
  let changes = 0;
  outbox.onQueueChange(() => (changes += 1));
  await settled();
  assert.equal(changes, 0);
  store();
  await settled();
  assert.equal(changes, 1);
  const forgotten = outbox.forget(left.key);
  await settled();
  assert.equal(changes, 1);
  store();
  await forgotten;
  assert.equal(changes, 2);
});

test("each submission has a key of 32 hexadecimal digits", async () => {
  const { requests, fetch } = service(() => accepted("e"));
  mock.method(crypto, "getRandomValues", (bytes) => (bytes.set([0x0a, 0xa7]), bytes));
  const headers = () => ({ "idempotency-key": "mine", "content-type": "text/plain" });
  await client({ fetch, headers }).submit({});
  assert.equal(requests[0].headers.get("idempotency-key"), "0aa7".padEnd(32, "0"));
  assert.equal(requests[0].headers.get("content-type"), "application/json");
});

test("a key that no header takes is refused, and nothing is queued", async () => {
  const outbox = client({ fetch: service(() => accepted("e")).fetch });
  await assert.rejects(outbox.submit({}, { key: "ключ" }), TypeError);
  assert.deepEqual(await outbox.queued(), []);
});

test("each of two submissions under one key hears the answer", async () => {
  webLocks();
  const { requests, fetch } = service((_, place) => accepted("e", { "idempotent-replayed": !!place }));
  const outbox = client({ fetch });
  const all = [1, 2].map(() => outbox.submit({ documentName: "1" }, { key: "k" }));
  const told = [false, true].map((replayed) => ({ eventId: "e", replayed }));
  assert.deepEqual(await Promise.all(all), told);
  assert.deepEqual([requests.length, await outbox.queued()], [2, []]);
});

test("flush ends a wait between two tries", async () => {
  stoppedClock();
  for (const broken of [{}, { all: () => Promise.reject(new Error("no storage")) }]) {
    const full = () => refused(503, "outbox_full", { "retry-after": "60" });
    const { requests, fetch } = service((_, place) => (place > 1 ? accepted("e") : full()));
    const outbox = client({ fetch, queue: { ...memoryQueue(), ...broken } });
    let told = [];
    void Promise.all(submit(outbox, "1", "2")).then((answers) => (told = answers));
    await settled();
    await outbox.flush();
    await settled();
    assert.deepEqual([requests.length, told.length], [4, 2]);
  }
});

test("an event of an earlier page that is refused stays, and is not sent again", async () => {
  webLocks();
  const queue = memoryQueue();
  await queue.put(left);
  const { requests, fetch } = service(() => refused(400, "invalid_field"));
  const outbox = client({ fetch, queue });
  await outbox.flush();
  await settled();
  const refusal = { status: 400, code: "invalid_field", message: "Refused." };
  assert.deepEqual(await outbox.queued(), [{ ...left, refusal }]);
  await outbox.flush();
  await settled();
  assert.equal(requests.length, 1);
});

test("an event is sent once it is stored, and another page leaves it to this one", async () => {
  webLocks();
  const queue = memoryQueue();
  const { put } = queue;
  let store;
  queue.put = (entry) => new Promise((stored) => (store = () => stored(put(entry))));
  const { requests, fetch } = service(() => new Promise(() => undefined));
  void client({ fetch, queue }).submit({ documentName: "1" });
  await settled();
  assert.equal(requests.length, 0);
  store();
  await settled();
  await put(left);
  await client({ fetch, queue }).flush();
  await settled();
  assert.deepEqual(requests.map(nameOf), ["1", "left"]);
});

test("an event under way when its page closes stays queued", async () => {
  const queue = memoryQueue();
  const given = service(() => undefined).fetch;
  const fetch = (url, options) =>
    new Promise((_, fail) => {
      void given(url, options);
      options.signal.addEventListener("abort", () => fail(options.signal.reason));
    });
  const outbox = client({ fetch, queue });
  void outbox.submit({ documentName: "1" });
  await settled();
  outbox.close();
  await settled();
  assert.equal((await queue.all()).length, 1);
});

test("an event of an earlier page waits for the sign-in", async () => {
  const queue = memoryQueue();
  await queue.put(left);
  const { requests, fetch } = service(() => refused(401, "session_required"));
  const outbox = client({ fetch, queue });
  await outbox.flush();
  await settled();
  assert.deepEqual([requests.length, await outbox.queued()], [1, [left]]);
});

test("an event that got 401 is sent by the same page after the sign-in", async () => {
  webLocks();
  const { requests, fetch } = service((_, place) =>
    place ? accepted("e") : refused(401, "session_required"),
  );
  const outbox = client({ fetch });
  await assert.rejects(outbox.submit({ documentName: "1" }), { code: "session_required" });
  await outbox.flush();
  await settled();
  assert.deepEqual([requests.map(nameOf), await outbox.queued()], [["1", "1"], []]);
});

test("a refusal that can't be stored ends no sending", async () => {
  const queue = memoryQueue();
  await queue.put(left);
  queue.put = async () => Promise.reject(new Error("no storage"));
  const { fetch } = service(({ body }) =>
    body.documentName === "left" ? refused(400, "invalid_field") : accepted("e"),
  );
  const outbox = client({ fetch, queue });
  await outbox.flush();
  assert.equal((await outbox.submit({ documentName: "1" })).eventId, "e");
});

test("storage that fails while an event is taken over keeps no lock on it", async () => {
  const held = webLocks();
  const queue = memoryQueue();
  await queue.put(left);
  const { get } = queue;
  queue.get = async () => Promise.reject(new Error("no storage"));
  const { requests, fetch } = service(() => accepted("e"));
  const outbox = client({ fetch, queue });
  await outbox.flush();
  await settled();
  assert.deepEqual([...held], []);
  queue.get = get;
  await outbox.flush();
  await settled();
  assert.deepEqual(requests.map(nameOf), ["left"]);
  assert.deepEqual([...held], []);
});

test("a browser that gives no lock sends all the same", async () => {
  const locks = { request: async () => Promise.reject(new Error("no lock")) };
  Object.defineProperty(globalThis, "navigator", { value: { locks }, configurable: true });
  const queue = memoryQueue();
  await queue.put(left);
  const outbox = client({ fetch: service(() => accepted("e")).fetch, queue });
  await outbox.submit({ documentName: "1" });
  await outbox.flush();
  await settled();
  assert.deepEqual(await queue.all(), []);
});

test("a key that a page of another account sends is free", async () => {
  webLocks();
  const never = service(() => new Promise(() => undefined)).fetch;
  void client({ account: "bob", fetch: never }).submit({ documentName: "bob's" }, { key: left.key });
  await settled();
  const queue = memoryQueue();
  await queue.put(left);
  const { requests, fetch } = service(() => accepted("e"));
  await client({ account: "ada", fetch, queue }).flush();
  await settled();
  assert.deepEqual(requests.map(nameOf), ["left"]);
});

test("a client that closes keeps no process running", async () => {
  const timers = () => process.getActiveResourcesInfo().filter((one) => one === "Timeout").length;
  const before = timers();
  const { fetch } = service(() => refused(503, "outbox_unavailable", { "retry-after": "60" }));
  const outbox = client({ fetch });
  void outbox.submit({ documentName: "1" });
  await settled();
  assert.equal(timers(), before + 1);
  outbox.close();
  assert.equal(timers(), before);
  const other = service(({ body: { documentName } }, _, signal) =>
    documentName === "1"
      ? refused(503, "outbox_unavailable", { "retry-after": "60" })
      : new Promise((_, fail) => signal.addEventListener("abort", () => fail(signal.reason))),
  );
  const closed = client({ fetch: other.fetch });
  submit(closed, "1", "2");
  await settled();
  closed.close();
  await settled();
  assert.equal(timers(), before);
});

test("headers may come later, and are asked for again when they fail", async () => {
  const token = new Headers({ authorization: "Bearer t" });
  const tokens = [Promise.reject(new Error("no token")), token];
  tokens[0].catch(() => undefined);
  const { requests, fetch } = service(() => accepted("e"));
  const outbox = client({ fetch, headers: async () => tokens.shift(), retry: { firstDelayMs: 1 } });
  await outbox.submit({ documentName: "1" });
  assert.deepEqual(requests.map(({ headers }) => headers.get("authorization")), ["Bearer t"]);
});

test("events of a machine share a request, each with an id of its own", async () => {
  const { requests, fetch } = service(({ body }, place) =>
    place
      ? Response.json({ eventIds: body.map(({ data }) => `e-${data.n}`).slice(place - 2) })
      : refused(503, "outbox_unavailable"),
  );
  const outbox = client({ fetch, retry: { firstDelayMs: 1 } });
  const ids = ["own", null, undefined];
  const all = Array.from({ length: 50 }, (_, n) => {
    const event = { name: "n", data: { n }, id: n in ids ? ids[n] : "" };
    return outbox.submit(event, { path: "/api/events", key: ["k-0", "k-1"][n] });
  });
  assert.deepEqual((await Promise.all(all)).map(({ eventId }) => eventId).at(-1), "e-49");
  assert.equal(requests.length, 3); // a service that was away makes none suspect
  assert.equal(requests[0].headers.get("idempotency-key"), null);
  assert.deepEqual([0, 1].map((n) => requests[0].body[n].id), ["own", "k-1"]);
  assert.equal(new Set(requests[0].body.map(({ id }) => id)).size, 50);
});

test("a request has at most 100 events, of a machine alone, and half a million characters", async () => {
  const others = JSON.stringify({ name: "n", data: { text: "" }, id: "i".repeat(32) }).length;
  const half = 250_000 - others;
  for (const [count, length, ...sizes] of [
    [101, 1, 100, 1],
    [3, half, 2, 1],
    [3, half + 1, 1, 1, 1],
    [2, 600_000, 1, 1],
  ]) {
    const { requests, fetch } = service(({ body }) =>
      Response.json({ status: "ok", eventId: "e", eventIds: body.map?.(() => "e") }),
    );
    const event = { name: "n", data: { text: "a".repeat(length) } };
    const outbox = client({ fetch });
    const post = () => outbox.submit(event, { path: "/api/events" });
    const before = [...submit(outbox, "a"), post(), ...submit(outbox, "b")];
    await Promise.all([...before, ...Array.from({ length: count - 1 }, post)]);
    const seen = requests.map(({ body }) => body.length ?? body.documentName);
    assert.deepEqual(seen, ["a", sizes[0], "b", ...sizes.slice(1)]);
  }
});

test("a refused event of a machine takes no other with it, also where the next tries fail", async () => {
  const { requests, fetch } = service(({ body }, place) => {
    if (place > 0 && place < 4) return refused(503, "outbox_unavailable");
    if (body.some(({ name }) => name === "")) return refused(400, "invalid_field");
    return Response.json({ status: "ok", eventIds: body.map(({ name }) => name) });
  });
  const outbox = client({ fetch, retry: { firstDelayMs: 1 } });
  const all = ["", "b"].map((name) => outbox.submit({ name }, { path: "/api/events" }));
  const ends = await Promise.allSettled(all);
  const told = ends.map(({ value, reason }) => value?.eventId ?? reason.code);
  assert.deepEqual(told, ["invalid_field", "b"]);
  assert.deepEqual(requests.map(({ body }) => body.length), [2, ...Array(5).fill(1)]);
});

test("a key that is refused is refused once for all events of a request", async () => {
  const { requests, fetch } = service(() => refused(401, "event_key_required"));
  const outbox = client({ fetch });
  const all = ["a", "b"].map((name) => outbox.submit({ name }, { path: "/api/events" }));
  const ends = await Promise.allSettled(all);
  assert.deepEqual(ends.map(({ reason }) => reason.code), Array(2).fill("event_key_required"));
  assert.equal(requests.length, 1);
  const left = await outbox.queued();
  assert.deepEqual(left.map(({ body }) => JSON.parse(body).name), ["a", "b"]);
  assert.deepEqual(ends.map(({ reason }) => reason.queuedAs), left.map(({ key }) => key));
});
