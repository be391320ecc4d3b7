// An application's own transactions with Drizzle: one that is rolled back, one that is committed.
import { drizzle } from "drizzle-orm/node-postgres";
import { sql } from "drizzle-orm";
import pg from "pg";

const [host, database] = process.argv.slice(2);
const pool = new pg.Pool({ host, database, user: "outbox" });
const db = drizzle(pool);
const append = (tx, data) =>
  tx.execute(sql`SELECT outbox.append(${"app/saved"}, ${JSON.stringify(data)}::jsonb, ${"u-1"}) AS id`);

await db.execute(sql`CREATE TABLE document (name text)`);
try {
  await db.transaction(async (tx) => {
    await tx.execute(sql`INSERT INTO document VALUES ('lost')`);
    await append(tx, { kept: false });
    tx.rollback();
  });
} catch (error) {
  if (error.constructor.name !== "TransactionRollbackError") throw error;
}
const kept = await db.transaction(async (tx) => {
  await tx.execute(sql`INSERT INTO document VALUES ('kept')`);
  return (await append(tx, { kept: true })).rows[0].id;
});
process.stdout.write(kept);
process.kill(process.pid, "SIGKILL");
