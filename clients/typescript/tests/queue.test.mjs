import "fake-indexeddb/auto";
import { forceCloseDatabase } from "fake-indexeddb";
import assert from "node:assert/strict";
import { afterEach, mock, test } from "node:test";
import { indexedDbQueue, memoryQueue, OutboxClient } from "inngest-outbox-client";
import { accepted, service, until } from "./service.mjs";

const entry = (key, createdAt) => ({ key, path: "/api/route", body: '{"documentName":"a"}', createdAt });
const keysOf = (entries) => entries.map(({ key }) => key);

afterEach(() => mock.restoreAll());

test("a queue has what an earlier page left under its name, oldest first", async () => {
  const page = indexedDbQueue("one");
  for (const one of [entry("a", 3), entry("b", 1), entry("c", 2)]) await page.put(one);
  const refusal = { status: 400, code: "invalid_field", message: "Refused." };
  await page.put({ ...entry("c", 2), refusal });
  const next = indexedDbQueue("one");
  assert.deepEqual(keysOf(await next.all()), ["b", "c", "a"]);
  assert.deepEqual((await next.get("c")).refusal, refusal);
  await next.remove("b");
  assert.deepEqual(keysOf(await page.all()), ["c", "a"]);
  assert.equal(await page.get("b"), undefined);
  assert.deepEqual(await indexedDbQueue("other").all(), []);
  const inMemory = memoryQueue();
  for (const key of ["a", "b", "a"]) await inMemory.put(entry(key, 1));
  assert.deepEqual(keysOf(await inMemory.all()), ["a", "b"]);
});

test("a queue that the browser did not open is opened at the next use", async () => {
  const open = mock.method(indexedDB, "open", () => {
    const request = { error: new Error("no storage") };
    queueMicrotask(() => request.onerror());
    return request;
  });
  const queue = indexedDbQueue("refused");
  for (const act of [() => queue.all(), () => queue.put(entry("a", 1)), () => queue.remove("a")]) {
    await assert.rejects(act(), /no storage/);
  }
  open.mock.restore();
  assert.deepEqual(await queue.all(), []);
});

test("a queue that the browser has closed is opened again", async () => {
  const transaction = mock.method(IDBDatabase.prototype, "transaction");
  const queue = indexedDbQueue("closed");
  await queue.put(entry("a", 1));
  forceCloseDatabase(transaction.mock.calls.at(-1).this);
  await queue.put(entry("b", 2));
  assert.deepEqual(keysOf(await queue.all()), ["a", "b"]);
});

test("a change counts once it is written for good, and fails when the browser gives it up", async () => {
  const transaction = mock.method(IDBDatabase.prototype, "transaction");
  const queue = indexedDbQueue("full");
  await queue.put(entry("a", 1));
  assert.equal(transaction.mock.calls.at(-1).arguments[2].durability, "strict");
  const { put } = IDBObjectStore.prototype;
  mock.method(IDBObjectStore.prototype, "put", function (value) {
    const request = put.call(this, value);
    request.addEventListener("success", () => this.transaction.abort());
    return request;
  });
  const outcome = queue.put(entry("b", 2)).then(() => "written", () => "failed");
  assert.equal(await outcome, "failed");
  assert.deepEqual(keysOf(await queue.all()), ["a"]);
});

test("the next page of an account sends what the last left, and no other account does", async () => {
  const away = service(() => new Promise(() => undefined));
  const last = new OutboxClient({ account: "ada", fetch: away.fetch });
  for (const documentName of ["a", "b"]) void last.submit({ documentName });
  await until(() => away.requests.length === 2);
  last.close();
  assert.equal((await indexedDbQueue("inngest-outbox:ada").all()).length, 2);
  const sent = [];
  for (const account of ["bob", "ada"]) {
    const fetch = async () => accepted(String(sent.push(account)));
    const next = new OutboxClient({ account, fetch });
    await next.flush();
    await until(async () => (await next.queued()).length === 0);
    next.close();
  }
  assert.deepEqual(sent, ["ada", "ada"]);
});
