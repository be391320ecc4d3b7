// node app.mjs SDK PORT: serves the functions of the environment's FUNCTIONS with this package.
import { createServer } from "node:http";

const [, , sdk, port] = process.argv;
const { Inngest, RetryAfterError } = await import(sdk);
const { serve } = await import(`${sdk}/node`);
const declared = JSON.parse(process.env.FUNCTIONS);
const silent = () => {};
const client = new Inngest({
  id: declared[0].app,
  isDev: false,
  logger: { info: silent, warn: silent, error: silent, debug: silent },
});

const ms = (value) => `${Math.max(1, Math.round(value / 1000))}s`;
const match = "data.key";

function options(one) {
  const chosen = { id: one.id, retries: one.retries };
  if (one.cancel_on) chosen.cancelOn = [{ event: one.cancel_on, match }];
  if (one.batch_size) chosen.batchEvents = { maxSize: one.batch_size, timeout: ms(one.batch_ms) };
  if (one.rate_limit_ms) chosen.rateLimit = { limit: 1, period: ms(one.rate_limit_ms) };
  if (one.debounce_ms) chosen.debounce = { period: ms(one.debounce_ms), key: "event.data.key" };
  return chosen;
}

function handler(one) {
  return async ({ event, events, step }) => {
    if (one.wait_for) {
      const wanted = { event: one.wait_for, match, timeout: ms(one.lasts_ms) };
      const got = await step.waitForEvent("wait", wanted);
      return { got: got ? got.id : null };
    }
    if (one.lasts_ms) await step.sleep("lasts", ms(one.lasts_ms));
    if (one.error) throw new RetryAfterError(one.error.message, ms(one.retry_ms));
    if (one.batch_size) return { ids: events.map((each) => each.id) };
    if (one.sends) {
      const sent = await step.sendEvent("sends", { name: one.sends, data: event.data });
      return { ids: sent.ids };
    }
    if ("returns" in one) return one.returns;
    return { id: event.id, name: event.name, ts: event.ts, data: event.data };
  };
}

// The second argument was the trigger before version 4.
const functions = declared.map((one) =>
  client.createFunction.length === 3
    ? client.createFunction(options(one), { event: one.trigger }, handler(one))
    : client.createFunction({ ...options(one), triggers: [{ event: one.trigger }] }, handler(one)),
);
createServer(serve({ client, functions, servePath: "/api/inngest" })).listen(port, "127.0.0.1");
