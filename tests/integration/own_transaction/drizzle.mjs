// An application that keeps its documents with Drizzle. The second save of a name fails.
import { drizzle } from "drizzle-orm/node-postgres";
import pg from "pg";
import { saveDocument } from "./page.mjs";

const [host, database] = process.argv.slice(2);
const db = drizzle(new pg.Pool({ host, database, user: "outbox" }));

await saveDocument(db, "first.pdf", "u-1");
const error = await saveDocument(db, "first.pdf", "u-1").catch((caught) => caught);
if (error?.cause?.code !== "23505") throw error ?? new Error("a name was saved twice");
await saveDocument(db, "last.pdf", "u-1");
process.kill(process.pid, "SIGKILL");
