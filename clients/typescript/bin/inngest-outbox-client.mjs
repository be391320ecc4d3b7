#!/usr/bin/env node
// Makes the types of a running service's paths, for `OutboxClient<paths>`.
import { spawnSync } from "node:child_process";

const [command, url, ...options] = process.argv.slice(2);
if (command !== "types" || !url || url.startsWith("-")) {
  console.error("Usage: inngest-outbox-client types URL [-o FILE]");
  process.exit(2);
}
const description = new URL("/openapi.json", url).href;
const made = spawnSync(
  "npx",
  ["--yes", "openapi-typescript@7", description, "--empty-objects-unknown", ...options],
  { stdio: "inherit", shell: process.platform === "win32" },
);
process.exit(made.status ?? 1);
