import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { OutboxClient } from "inngest-outbox-client";
import { OutboxProvider, useEvent } from "inngest-outbox-client/react";
import { act, createElement } from "react";
import { create } from "react-test-renderer";
import { settled } from "./service.mjs";

globalThis.IS_REACT_ACT_ENVIRONMENT = true;

test("useEvent shows nothing of another id, and follows while it is mounted", async (t) => {
  mock.method(console, "error", () => {}); // the renderer's own notice
  const followed = [];
  const fetch = async (_, { signal }) => {
    const start = (body) => {
      const tell = (event) => body.enqueue(`data: ${JSON.stringify(event)}\n\n`);
      followed.push({ tell, signal });
      signal.addEventListener("abort", () => body.error(signal.reason));
    };
    return new Response(new ReadableStream({ start }).pipeThrough(new TextEncoderStream()));
  };
  const client = new OutboxClient({ fetch });
  let shown;
  const Shown = ({ id }) => {
    shown = useEvent(id);
    return null;
  };
  const page = (id) => createElement(OutboxProvider, { client }, createElement(Shown, { id }));
  const mounted = await act(async () => create(page()));
  t.after(() => act(async () => mounted.unmount()));
  const show = (id) => act(async () => mounted.update(page(id)));
  const tell = (place, event) => act(() => (followed[place].tell(event), settled()));

  await show("a");
  await tell(0, { state: "pending", final: false });
  assert.equal(shown.event.state, "pending");
  await show("b");
  assert.deepEqual(shown, { event: undefined, error: undefined });
  assert.ok(followed[0].signal.aborted);
  await tell(1, { state: "dead", final: false });
  assert.equal(shown.event.state, "dead");
  await show();
  assert.equal(shown.event, undefined);
  assert.ok(followed[1].signal.aborted);
});
