import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { OutboxClient } from "inngest-outbox-client";
import { refused, service, settled } from "./service.mjs";

const PENDING = { state: "pending", final: false };
const view = (event, etag) => Response.json(event, { headers: { etag } });

test("waitFor gives back the ETag of what it saw, and outlasts the service's wait", async () => {
  const timeout = mock.method(AbortSignal, "timeout");
  const answers = [
    view(PENDING, '"1"'),
    new Response(null, { status: 304 }),
    view({ state: "delivered", final: false }, '"2"'),
    view({ state: "delivered", final: true }, '"3"'),
  ];
  const { requests, fetch } = service((_, place) => answers[place]);
  const event = await new OutboxClient({ fetch }).waitFor("e");
  assert.equal(event.final, true);
  const seen = requests.map(({ headers }) => headers.get("if-none-match"));
  assert.deepEqual(seen, [null, '"1"', '"1"', '"2"']);
  assert.ok(requests.every(({ url }) => url === "/api/events/e?wait=30"));
  assert.ok(timeout.mock.calls.every(({ arguments: [ms] }) => ms > 30_000));
  mock.restoreAll();
});

test("a stream may end its lines with CRLF, wherever it is cut", async () => {
  const text = `: hello\r\n\r\ndata: {"final":false}\r\n\r\ndata: {"final":\r\ndata: true}\r\n\r\n`;
  const cuts = Array.from(new TextEncoder().encode(text), (byte) => Uint8Array.of(byte));
  const { fetch } = service(() => new Response(ReadableStream.from(cuts)));
  const seen = [];
  for await (const event of new OutboxClient({ fetch }).watch("e")) seen.push(event.final);
  assert.deepEqual(seen, [false, true]);
});

test("a stream that ends is opened again, and nothing is told twice", async () => {
  const [first, last] = [PENDING, { state: "dead", final: true }].map((one) => JSON.stringify(one));
  const answers = [`data: ${first}\n\n`, `data: ${first}\n\ndata: ${last}\n\n`];
  const { fetch } = service((_, place) => new Response(answers[place]));
  const seen = [];
  const outbox = new OutboxClient({ fetch, retry: { firstDelayMs: 1 } });
  for await (const event of outbox.watch("e")) seen.push(event.state);
  assert.deepEqual(seen, ["pending", "dead"]);
});

test("watch ends with a refusal, or with its signal", async () => {
  const { fetch } = service(() => refused(404, "not_found"));
  const unknown = new OutboxClient({ fetch }).watch("e");
  await assert.rejects(unknown.next(), { code: "not_found" });
  const given = new AbortController();
  const silent = async (_, { signal }) => {
    const start = (stream) => signal.addEventListener("abort", () => stream.error(signal.reason));
    return new Response(new ReadableStream({ start }));
  };
  const next = new OutboxClient({ fetch: silent }).watch("e", { signal: given.signal }).next();
  await settled();
  given.abort(new Error("left"));
  await assert.rejects(next, /left/);
});
