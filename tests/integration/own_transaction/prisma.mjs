// An application that keeps its documents with Prisma. The second save of a name fails.
import { PrismaPg } from "@prisma/adapter-pg";
import { PrismaClient } from "@prisma/client";
import { saveDocument } from "./page.mjs";

const [host, database] = process.argv.slice(2);
const prisma = new PrismaClient({ adapter: new PrismaPg({ host, database, user: "outbox" }) });

await saveDocument(prisma, "first.pdf", "u-1");
const error = await saveDocument(prisma, "first.pdf", "u-1").catch((caught) => caught);
if (error?.code !== "P2002") throw error ?? new Error("a name was saved twice");
await saveDocument(prisma, "last.pdf", "u-1");
process.kill(process.pid, "SIGKILL");
