// A real Better Auth on a free port, its users in memory: it prints its address. argv: the audience.
import { createServer } from "node:http";
import { betterAuth } from "better-auth";
import { memoryAdapter } from "better-auth/adapters/memory";
import { toNodeHandler } from "better-auth/node";
import { jwt } from "better-auth/plugins";

const [audience] = process.argv.slice(2);
const server = createServer((request, response) => handle(request, response));
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const baseURL = `http://127.0.0.1:${server.address().port}`;
const tables = { user: [], session: [], account: [], verification: [], jwks: [] };
const auth = betterAuth({
  baseURL,
  secret: "a secret of the tests only, 32 bytes long",
  database: memoryAdapter(tables),
  emailAndPassword: { enabled: true },
  plugins: [jwt({ jwt: { audience } })],
  telemetry: { enabled: false },
});
const handle = toNodeHandler(auth);
console.log(baseURL);
