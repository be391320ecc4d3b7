// Prisma with its schema engine in WebAssembly. Its binary engine is not in npm.
import { PrismaPg } from "@prisma/adapter-pg";
import pg from "pg";
import { defineConfig } from "prisma/config";

const { HOST, DATABASE } = process.env;
const TEXT = 25;
const UNKNOWN_TO_THE_ADAPTER = [18, 19]; // "char" and name, which only catalogs have

class Pool extends pg.Pool {
  async query(...given) {
    const result = await super.query(...given);
    for (const field of result.fields)
      if (UNKNOWN_TO_THE_ADAPTER.includes(field.dataTypeID)) field.dataTypeID = TEXT;
    return result;
  }
}

// A timer of the engine's would keep the process for a minute after its work.
const wait = globalThis.setTimeout;
globalThis.setTimeout = (work, ms, ...given) =>
  ms < 60_000 ? wait(work, ms, ...given) : wait(work, ms, ...given).unref();

const pool = new Pool({
  host: HOST,
  database: DATABASE,
  user: "outbox",
  options: "-csearch_path=public",
  allowExitOnIdle: true,
});
export default defineConfig({
  experimental: { adapter: true },
  schema: "schema.prisma",
  engine: "js",
  adapter: async () => new PrismaPg(pool),
});
