import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const COMMAND = fileURLToPath(new URL("../bin/inngest-outbox-client.mjs", import.meta.url));

function run(given, env = {}) {
  return spawnSync(process.execPath, [COMMAND, ...given], { encoding: "utf8", env });
}

test("a command without an address says how it is used", () => {
  for (const given of [[], ["types"], ["types", "-o"], ["type", "http://a.test"]]) {
    const { status, stderr } = run(given);
    assert.deepEqual([status, stderr], [2, "Usage: inngest-outbox-client types URL [-o FILE]\n"]);
  }
});

test("types are made from the service's description, and a command that makes none fails", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "npx-"));
  t.after(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, "npx"), '#!/bin/sh\necho "$@"\nexit 7\n', { mode: 0o755 });
  const { status, stdout } = run(["types", "http://a.test/x", "-o", "f"], { PATH: folder });
  const asked = "openapi-typescript@7 http://a.test/openapi.json --empty-objects-unknown -o f";
  assert.deepEqual([status, stdout], [7, `--yes ${asked}\n`]);
  assert.equal(run(["types", "http://a.test"], { PATH: "/none" }).status, 1);
});
