import { encryptionMiddleware } from "@inngest/middleware-encryption";
import { InngestTestEngine } from "@inngest/test";
import { Inngest } from "inngest";
import { readFileSync } from "node:fs";
const [key, file] = process.argv.slice(2);
const event = JSON.parse(readFileSync(file, "utf8"));
const client = new Inngest({ id: "reader", middleware: [encryptionMiddleware({ key })] });
const options = { id: "read" }, trigger = { event: event.name };
let seen;
const handler = ({ event }) => (seen = event.data.encrypted);
let fn;
try { fn = client.createFunction(options, trigger, handler); } catch { fn = client.createFunction({ ...options, triggers: [trigger] }, handler); }
const { result, error } = await new InngestTestEngine({ function: fn, events: [event] }).execute();
console.log(JSON.stringify({ seen, result, error: error && String(error.message ?? error) }));
process.exit(0);
