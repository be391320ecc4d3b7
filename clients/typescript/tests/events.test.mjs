import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { afterEach, mock, test } from "node:test";
import { OutboxClient } from "inngest-outbox-client";
import { refused, service, settled, stoppedClock } from "./service.mjs";

const PENDING = { state: "pending", final: false };
const RETRY = { firstDelayMs: 100, maxDelayMs: 10_000 };
const view = (event, etag) => Response.json(event, { headers: { etag } });

/** A `fetch` whose answers say nothing, and end with their signal. */
const silent = async (_, { signal }) => {
  const start = (body) => signal?.addEventListener("abort", () => body.error(signal.reason));
  return new Response(new ReadableStream({ start }));
};

afterEach(() => {
  mock.restoreAll();
  mock.timers.reset();
});

test("waitFor gives back the ETag of what it saw, and outlasts the service's wait", async () => {
  const timeout = mock.method(AbortSignal, "timeout");
  const answers = [
    view(PENDING, '"1"'),
    new Response(null, { status: 304 }),
    Response.json({ state: "sent", final: false }),
    view({ state: "delivered", final: false }, '"2"'),
    view({ state: "delivered", final: true }, '"3"'),
  ];
  const { requests, fetch } = service((_, place) => answers[place]);
  // The next question follows at once: a pause would outlast the test.
  const retry = { firstDelayMs: 1e9, maxDelayMs: 1e9 };
  const event = await new OutboxClient({ fetch, retry }).waitFor("a/b");
  assert.equal(event.final, true);
  const seen = requests.map(({ headers }) => headers.get("if-none-match"));
  assert.deepEqual(seen, [null, '"1"', '"1"', null, '"2"']);
  assert.ok(requests.every(({ url }) => url === "/api/events/a%2Fb?wait=30"));
  assert.equal(timeout.mock.callCount(), 5);
  assert.ok(timeout.mock.calls.every(({ arguments: [ms] }) => ms === 60_000));
});

test("a stream may end its lines with CRLF, wherever it is cut", async () => {
  const text = `: hello\r\n\r\ndata:{"final":false}\r\n\r\n: there\r\n\r\nid: 2\r\ndata: {"final":true,"reason":"ü"}\r\n\r\n`;
  const cuts = Array.from(new TextEncoder().encode(text), (byte) => Uint8Array.of(byte));
  const { requests, fetch } = service(() => new Response(ReadableStream.from(cuts)));
  const timeout = mock.method(AbortSignal, "timeout");
  const seen = [];
  for await (const event of new OutboxClient({ fetch }).watch("a/b")) seen.push(event);
  assert.deepEqual(seen, [{ final: false }, { final: true, reason: "ü" }]);
  assert.equal(requests[0].url, "/api/events/a%2Fb/stream");
  assert.equal(requests[0].headers.get("accept"), "text/event-stream");
  assert.equal(timeout.mock.callCount(), 0); // it may last
});

test("a stream that ends, also within an event, is opened again, and nothing is told twice", async () => {
  const told = [PENDING, { state: "sent", final: false }, { state: "dead", final: true }];
  const blocks = told.map((event) => `data: ${JSON.stringify(event)}\n\n`);
  const answers = [null, `${blocks[0]}data: {"sta`, blocks.join("")];
  const { fetch } = service((_, place) => new Response(answers[place]));
  const seen = [];
  const outbox = new OutboxClient({ fetch, retry: { firstDelayMs: 1 } });
  for await (const event of outbox.watch("e")) seen.push(event.state);
  assert.deepEqual(seen, ["pending", "sent", "dead"]);
});

test("a stream is opened again after a pause, which grows until something is told", async () => {
  const pass = stoppedClock();
  const { requests, fetch } = service((_, place) => {
    if (place === 0) throw new TypeError("fetch failed");
    if (place === 1) return refused(503, "outbox_unavailable", { "retry-after": "1" });
    return new Response([2, 4].includes(place) ? `data: ${JSON.stringify(PENDING)}\n\n` : "");
  });
  const watching = new OutboxClient({ fetch, retry: RETRY }).watch("e");
  const first = watching.next();
  await settled();
  for (const [ms, count] of [[99, 1], [1, 2], [1_199, 2], [1, 3]]) {
    await pass(ms);
    assert.equal(requests.length, count);
  }
  assert.deepEqual((await first).value, PENDING);
  void watching.next();
  await settled();
  for (const [ms, count] of [[99, 3], [1, 4], [199, 4], [1, 5], [99, 5], [1, 6]]) {
    await pass(ms);
    assert.equal(requests.length, count);
  }
});

test("a read is repeated after pauses that grow", async () => {
  const pass = stoppedClock();
  const { requests, fetch } = service(() => refused(503, "outbox_unavailable"));
  const { signal } = new AbortController();
  void new OutboxClient({ fetch, retry: RETRY }).get("e", { signal });
  await settled();
  for (const [ms, count] of [[99, 1], [1, 2], [199, 2], [1, 3], [399, 3], [1, 4]]) {
    await pass(ms);
    assert.equal(requests.length, count);
  }
  assert.equal(getEventListeners(signal, "abort").length, 1); // of the pause that lasts
});

test("a stream that is silent for 45 s is opened again", async () => {
  const pass = stoppedClock();
  let stream;
  const start = (body) => (stream = body);
  const { requests, fetch } = service(() => new Response(new ReadableStream({ start })));
  void new OutboxClient({ fetch, retry: RETRY }).watch("e").next();
  await settled();
  await pass(44_000);
  stream.enqueue(new TextEncoder().encode(": here\n\n"));
  await settled();
  for (const [ms, count] of [[44_800, 1], [150, 1], [50, 1], [100, 2]]) {
    await pass(ms);
    assert.equal(requests.length, count);
  }
});

test("a stream is closed when nobody reads it on, and when nothing is heard for 45 s", async () => {
  const pass = stoppedClock();
  const told = () => new Response('data: {"final":false}\n\n');
  for (const answer of [told, () => new Promise(() => undefined), () => silent("", {})]) {
    for (const signal of [undefined, new AbortController().signal]) {
      const ends = [];
      const fetch = (_, sent) => (ends.push(sent.signal), answer());
      const watching = new OutboxClient({ fetch, retry: RETRY }).watch("e", { signal });
      const first = watching.next();
      await settled();
      await pass(44_999);
      assert.equal(ends[0].aborted, false);
      if (answer === told) await first.then(() => watching.return());
      else await pass(1);
      assert.equal(ends[0].aborted, true);
      if (answer !== told) await pass(100);
      assert.equal(ends.length, answer === told ? 1 : 2);
    }
  }
});

test("a refusal ends watch and takeBack", async () => {
  const { fetch } = service(() => refused(404, "not_found"));
  const outbox = new OutboxClient({ fetch });
  for (const unknown of [outbox.watch("e").next(), outbox.takeBack("e")]) {
    await assert.rejects(unknown, { code: "not_found" });
  }
});

test("an event is gone where the answer to a try to take it back was lost", async () => {
  for (const lost of [() => Promise.reject(new TypeError("reset")), () => refused(504, "http_504")]) {
    for (const [status, code] of [[404, "not_found"], [409, "event_left"], [404, "http_404"]]) {
      const { requests, fetch } = service((_, place) => (place > 1 ? refused(status, code) : lost()));
      const gone = new OutboxClient({ fetch, retry: { firstDelayMs: 1 } }).takeBack("e");
      if (code === "not_found") await gone;
      else await assert.rejects(gone, { code });
      assert.equal(requests.length, 3);
    }
  }
});

test("every read ends with its signal, also between two tries", async () => {
  stoppedClock();
  const away = service(() => refused(503, "outbox_unavailable")).fetch;
  const waits = [(one, given) => one.get("e", given), (one, given) => one.waitFor("e", given)];
  const reads = [...waits, (one, given) => one.watch("e", given).next()];
  for (const fetch of [away, silent]) {
    for (const read of reads) {
      const given = new AbortController();
      const ended = read(new OutboxClient({ fetch, retry: RETRY }), { signal: given.signal });
      await settled();
      given.abort(new TypeError("left"));
      await assert.rejects(ended, /left/);
    }
  }
});
