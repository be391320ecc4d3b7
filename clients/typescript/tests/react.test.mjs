import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { memoryQueue, OutboxClient, OutboxError } from "inngest-outbox-client";
import {
  OutboxProvider,
  outboxHooks,
  useEvent,
  useOutbox,
  useQueued,
  useSubmit,
} from "inngest-outbox-client/react";
import { act, createElement } from "react";
import { create } from "react-test-renderer";
import { accepted, refused, service, settled, stoppedClock } from "./service.mjs";

globalThis.IS_REACT_ACT_ENVIRONMENT = true;
mock.method(console, "error", () => {}); // the renderer's own notices

/** A component that uses `hook`; `seen.now` is what it shows, and `show` gives it another input. */
async function mounted(t, hook, { client, input }) {
  const seen = {};
  const Shown = (props) => {
    seen.now = hook(props.input);
    return null;
  };
  const page = (given, one = client) =>
    createElement(OutboxProvider, { client: one }, createElement(Shown, { input: given }));
  const root = await act(async () => create(page(input)));
  t.after(() => act(async () => root.unmount()));
  const show = (given, one) => act(async () => root.update(page(given, one)));
  return { seen, show, leave: () => act(async () => root.unmount()) };
}

const later = (work) => act(async () => (await work(), await settled()));

/** Streams of events: `tell(place, event)` on the stream that was opened as number `place`. */
function streams() {
  const opened = [];
  const open = (signal) => {
    const start = (body) => {
      opened.push({ body, signal });
      signal.addEventListener("abort", () => body.error(signal.reason));
    };
    return new Response(new ReadableStream({ start }).pipeThrough(new TextEncoderStream()));
  };
  const tell = (place, event) =>
    later(() => opened[place].body.enqueue(`data: ${JSON.stringify(event)}\n\n`));
  return { opened, open, tell };
}

test("useEvent shows nothing of another id, and follows while it is mounted", async (t) => {
  const { opened, open, tell } = streams();
  const client = new OutboxClient({ fetch: async (_, { signal }) => open(signal) });
  const { seen, show, leave } = await mounted(t, useEvent, { client });
  await show("a");
  await tell(0, { state: "pending", final: false });
  assert.equal(seen.now.event.state, "pending");
  await show("b");
  assert.deepEqual(seen.now, { event: undefined, error: undefined });
  assert.ok(opened[0].signal.aborted);
  await tell(1, { state: "dead", final: false });
  assert.equal(seen.now.event.state, "dead");
  await show();
  assert.equal(seen.now.event, undefined);
  assert.ok(opened[1].signal.aborted);
  await show("c");
  await leave();
  assert.ok(opened[2].signal.aborted);
});

test("useEvent shows a refusal beside the last it saw, and follows by another client", async (t) => {
  const pass = stoppedClock();
  t.after(() => mock.timers.reset());
  const { open, tell, opened } = streams();
  const { fetch } = service((_, place, signal) =>
    place ? refused(401, "session_required") : open(signal),
  );
  const client = new OutboxClient({ fetch, retry: { firstDelayMs: 100 } });
  const { seen, show } = await mounted(t, useEvent, { client, input: "a" });
  await tell(0, { state: "pending", final: false });
  await later(() => opened[0].body.close());
  await later(() => pass(100));
  assert.equal(seen.now.event.state, "pending");
  assert.ok(seen.now.error instanceof OutboxError);
  const other = new OutboxClient({ fetch: async (_, { signal }) => open(signal) });
  await show("a", other);
  assert.deepEqual(seen.now, { event: undefined, error: undefined });
  await tell(1, { state: "delivered", final: true });
  assert.equal(seen.now.event.state, "delivered");
});

test("useSubmit waits for the service, then follows the event", async (t) => {
  const { opened, open, tell } = streams();
  const posted = [];
  const { fetch } = service((request, _, signal) => {
    if (request.method === "POST") return new Promise((answer) => posted.push({ request, answer }));
    return opened.length ? refused(404, "not_found") : open(signal);
  });
  const client = new OutboxClient({ fetch });
  const { seen, show } = await mounted(t, useSubmit, { client, input: "/api/reports" });
  assert.equal(seen.now.waiting, false);
  await later(() => assert.equal(seen.now.submit(Promise.resolve({ report: "sales" })), undefined));
  assert.deepEqual([seen.now.waiting, opened.length], [true, 0]);
  const { url, body } = posted[0].request;
  assert.deepEqual([url, body], ["/api/reports", { report: "sales" }]);
  await later(() => posted[0].answer(accepted("e-1")));
  assert.equal(seen.now.waiting, false);
  await tell(0, { id: "e-1", final: true });
  assert.equal(seen.now.event.id, "e-1");
  await later(() => seen.now.submit({ report: "stock" }));
  assert.deepEqual([seen.now.waiting, seen.now.event], [true, undefined]);
  await later(() => posted[1].answer(accepted("e-2")));
  assert.equal(seen.now.error.code, "not_found");
  await show("/api/orders");
  await later(() => [1, 2, 3].forEach((order) => seen.now.submit({ order })));
  assert.deepEqual(posted.slice(2).map((one) => one.request.url), Array(3).fill("/api/orders"));
  await later(() => posted[2].answer(accepted("e-3")));
  await later(() => posted[3].answer(refused(400, "invalid_field")));
  assert.deepEqual([seen.now.waiting, seen.now.event, seen.now.error], [true, undefined, undefined]);
});

test("useSubmit shows why nothing was submitted, until the next submit", async (t) => {
  const { requests, fetch } = service((_, place) =>
    place ? new Promise(() => undefined) : refused(400, "invalid_field"),
  );
  const client = new OutboxClient({ fetch });
  const { seen, show } = await mounted(t, useSubmit, { client });
  await later(() => seen.now.submit(Promise.reject(new Error("no upload"))));
  assert.deepEqual([seen.now.error.message, seen.now.waiting], ["no upload", false]);
  assert.equal(requests.length, 0);
  await later(() => seen.now.submit({ documentName: "a" }));
  assert.deepEqual([seen.now.error.code, seen.now.waiting], ["invalid_field", false]);
  assert.equal(requests[0].url, "/api/route");
  await later(() => seen.now.submit({ documentName: "b" }));
  assert.deepEqual([seen.now.error, seen.now.waiting], [undefined, true]);
  const other = service(() => new Promise(() => undefined));
  await show(undefined, new OutboxClient({ fetch: other.fetch }));
  await later(() => seen.now.submit({ documentName: "c" }));
  assert.equal(other.requests.length, 1);
});

test("useQueued counts what waits, not what was refused, and hears each change", async (t) => {
  const queue = memoryQueue();
  const entry = { key: "a", path: "/api/route", body: "{}", createdAt: 1 };
  await queue.put(entry);
  await queue.put({ ...entry, key: "b", refusal: { status: 400, code: "c", message: "m" } });
  const client = new OutboxClient({ queue, fetch: () => new Promise(() => undefined) });
  const slow = new OutboxClient({ queue: { ...queue, all: () => new Promise(() => undefined) } });
  const { seen, show, leave } = await mounted(t, useQueued, { client: slow });
  await later(() => undefined);
  assert.equal(seen.now, 0);
  await show(undefined, client);
  assert.equal(seen.now, 1);
  await later(() => void client.submit({ documentName: "a" }));
  assert.equal(seen.now, 2);
  await later(() => client.forget("a"));
  assert.equal(seen.now, 1);
  const all = () => Promise.reject(new Error("no storage"));
  await show(undefined, new OutboxClient({ queue: { ...queue, all } }));
  assert.equal(seen.now, 0);
  await show(undefined, client);
  await leave();
  const reads = mock.method(queue, "all");
  await client.forget("b");
  assert.equal(reads.mock.callCount(), 0);
});

test("the hooks need a provider, and those of own types are the same", async () => {
  const Lost = () => useOutbox();
  const lost = async () => await act(async () => create(createElement(Lost)));
  await assert.rejects(lost, /useOutbox needs an OutboxProvider/);
  assert.deepEqual(outboxHooks(), { OutboxProvider, useOutbox, useSubmit });
});
