import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { OutboxClient } from "inngest-outbox-client";
import { refused, service, settled, stoppedClock } from "./service.mjs";

const FILE = new File(["text"], "a.txt", { type: "text/plain" });

test("an upload that fails is tried again with a new form", async () => {
  const asked = { documentName: "b.txt", contentType: "text/plain", size: 4 };
  const fields = { key: "k", policy: "p" };
  const form = (place) => ({ method: "POST", url: `https://bucket/${place}`, fields });
  const sent = [];
  const fetch = async (url, { method, body, signal, ...others }) => {
    assert.equal(method, "POST");
    if (url === "/api/uploads") {
      assert.deepEqual(JSON.parse(body), asked);
      return Response.json({ documentName: "users/b.txt", upload: form(sent.length) });
    }
    assert.deepEqual(others, {}); // no cookie and no header of the service goes to the bucket
    sent.push([url, [...body].map(([name, value]) => [name, value.name ?? value])]);
    if (sent.length === 2) throw new TypeError("fetch failed");
    return new Response(null, { status: [500, 0, 403, 304, 204][sent.length - 1] });
  };
  const outbox = new OutboxClient({ fetch, retry: { firstDelayMs: 1 } });
  assert.deepEqual(await outbox.upload(FILE, { name: "b.txt" }), { documentName: "users/b.txt" });
  const filled = [...Object.entries(fields), ["file", "a.txt"]];
  const posts = [0, 1, 2, 3, 4].map((place) => [`https://bucket/${place}`, filled]);
  assert.deepEqual(sent, posts);
});

test("a file without a type is uploaded as bytes, and an upload ends with its signal", async () => {
  const given = new AbortController();
  const asked = [];
  let ended;
  const fetch = async (url, { body, signal }) => {
    if (url !== "/api/uploads") {
      given.abort(new Error("left"));
      ended = signal;
      throw signal?.reason;
    }
    asked.push(JSON.parse(body));
    return Response.json({ documentName: "d", upload: { method: "POST", url: "/b", fields: {} } });
  };
  const upload = new OutboxClient({ fetch }).upload(new File(["ü"], "A b"), { signal: given.signal });
  await assert.rejects(upload, /left/);
  assert.equal(ended.reason, given.signal.reason);
  const contentType = "application/octet-stream";
  assert.deepEqual(asked, [{ documentName: "A b", contentType, size: 2 }]);
  for (const unnamed of [new Blob(["a"]), new File(["a"], "")]) {
    await assert.rejects(new OutboxClient({ fetch }).upload(unnamed), /needs options.name/);
  }
  assert.equal(asked.length, 1);
});

test("an upload fails at once where the service has no credentials to sign it", async () => {
  const { requests, fetch } = service(() => refused(503, "storage_unavailable", { "retry-after": "5" }));
  await assert.rejects(new OutboxClient({ fetch }).upload(FILE), { code: "storage_unavailable" });
  assert.equal(requests.length, 1);
});

test("an upload is given up after five tries", async () => {
  const { requests, fetch } = service(() => refused(503, "outbox_unavailable"));
  const outbox = new OutboxClient({ fetch, retry: { firstDelayMs: 1, maxDelayMs: 1 } });
  const unnamed = outbox.upload(new Blob([]), { name: "b" });
  await assert.rejects(unnamed, { code: "outbox_unavailable" });
  const asked = requests.map(({ body: { documentName, size } }) => [documentName, size]);
  assert.deepEqual(asked, Array(5).fill(["b", 0]));
  const form = { documentName: "d", upload: { method: "POST", url: "/b", fields: {} } };
  const cause = new TypeError("fetch failed");
  const lost = () => Promise.reject(cause);
  const signed = async () => Response.json(form);
  for (const [sign, store, told] of [
    [signed, async () => new Response(null, { status: 507 }), "The document storage answered 507."],
    [signed, lost, "The document storage can't be reached."],
    [lost, undefined, "The service can't be reached right now."],
    [async () => new Response("<h1>"), undefined, "The answer is not the service's."],
  ]) {
    const away = (url) => (url === "/b" ? store() : sign());
    const given = new OutboxClient({ fetch: away, retry: { firstDelayMs: 1, maxDelayMs: 1 } });
    const error = await given.upload(FILE).catch((thrown) => thrown);
    assert.deepEqual([error.name, error.message], ["OutboxConnectionError", told]);
    assert.equal(error.cause === cause, sign === lost || store === lost);
  }
});

test("an upload is tried again after pauses that grow, until its signal ends it", async (t) => {
  const pass = stoppedClock();
  t.after(() => (mock.timers.reset(), mock.restoreAll()));
  const { requests, fetch } = service(() => refused(500, "internal_error"));
  const given = new AbortController();
  const retry = { firstDelayMs: 100, maxDelayMs: 10_000 };
  const upload = new OutboxClient({ fetch, retry }).upload(FILE, { signal: given.signal });
  await settled();
  for (const [ms, count] of [[99, 1], [1, 2], [199, 2], [1, 3]]) {
    await pass(ms);
    assert.equal(requests.length, count);
  }
  given.abort(new Error("left"));
  await assert.rejects(upload, /left/);
  assert.equal(requests.length, 3);
});

test("a service and a bucket that hang are asked again, the bucket after the time of a slow line", async () => {
  const timeout = mock.method(AbortSignal, "timeout", () => AbortSignal.abort());
  const form = { documentName: "d", upload: { method: "POST", url: "/b", fields: {} } };
  for (const signal of [undefined, new AbortController().signal]) {
    const asked = [];
    const fetch = async (url, sent) => {
      asked.push(url);
      if ([1, 3].includes(asked.length)) sent.signal.throwIfAborted();
      return url === "/b" ? new Response() : Response.json(form);
    };
    const outbox = new OutboxClient({ fetch, retry: { firstDelayMs: 1, requestTimeoutMs: 7 } });
    await outbox.upload(new Blob(["x".repeat(65)]), { name: "d", signal });
    assert.deepEqual(asked, [...Array(2).fill("/api/uploads"), "/b", "/api/uploads", "/b"]);
  }
  const limits = [7, 7, 7 + 3, 7, 7 + 3];
  assert.deepEqual(timeout.mock.calls.map((call) => call.arguments[0]), [...limits, ...limits]);
  timeout.mock.restore();
});
