// Starts the service with a fake Inngest, makes the types of its event types, and starts Next.js.
import { spawn, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";

const python = process.env.PYTHON ?? "../../.venv/bin/python";
const service = process.env.OUTBOX_SERVICE_URL ?? "http://127.0.0.1:3001";
const port = process.env.PORT ?? "3000";
const env = {
  NEXTAUTH_SECRET: "a-secret-of-this-example-only",
  NEXTAUTH_URL: `http://localhost:${port}`,
  EVENT_TYPES_FILE: "event-types.yaml",
  ...process.env,
};

if (!existsSync(python)) {
  console.error("The service is not installed. Run `make nextjs` in the repository's folder.");
  process.exit(1);
}
const started = [start(python, ["-m", "inngest_outbox", "serve", "--fake-inngest"], new URL(service).port)];
await ready(`${service}/healthz`);
spawnSync("npm", ["run", "--silent", "types", "--", service, "-o", "outbox.d.ts"], { stdio: "inherit" });
started.push(start("node", ["node_modules/next/dist/bin/next", "dev"], port));
process.on("SIGTERM", () => stop(0));
process.on("SIGINT", () => stop(0));

function start(command, options, listening) {
  const made = spawn(command, options, { env: { ...env, PORT: listening }, stdio: "inherit" });
  return made.on("exit", (status) => stop(status ?? 1));
}

function stop(status) {
  process.exitCode ??= status;
  started.forEach((one) => one.kill("SIGTERM"));
}

async function ready(url) {
  while (!(await fetch(url).catch(() => undefined))) {
    if (process.exitCode !== undefined) process.exit();
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
