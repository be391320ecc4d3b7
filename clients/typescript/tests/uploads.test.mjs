import assert from "node:assert/strict";
import { test } from "node:test";
import { OutboxClient } from "inngest-outbox-client";
import { refused, service } from "./service.mjs";

const FILE = new File(["text"], "a.txt", { type: "text/plain" });

test("an upload that fails is tried again with a new form", async () => {
  const form = (place) => ({ method: "POST", url: `https://bucket/${place}`, fields: { key: "k" } });
  const sent = [];
  const fetch = async (url, { body }) => {
    if (url === "/api/uploads") {
      const upload = form(sent.length);
      return Response.json({ status: "ok", documentName: `users/${JSON.parse(body).documentName}`, upload });
    }
    sent.push([url, [...body.keys()]]);
    return new Response(null, { status: sent.length === 1 ? 500 : 204 });
  };
  const outbox = new OutboxClient({ fetch, retry: { firstDelayMs: 1 } });
  assert.deepEqual(await outbox.upload(FILE), { documentName: "users/a.txt" });
  const fields = ["key", "file"];
  assert.deepEqual(sent, [["https://bucket/0", fields], ["https://bucket/1", fields]]);
});

test("an upload fails at once where the service has no credentials to sign it", async () => {
  const { requests, fetch } = service(() => refused(503, "storage_unavailable", { "retry-after": "5" }));
  await assert.rejects(new OutboxClient({ fetch }).upload(FILE), { code: "storage_unavailable" });
  assert.equal(requests.length, 1);
});
