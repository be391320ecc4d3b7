// Drizzle's table of the page's example.
import { pgTable, text } from "drizzle-orm/pg-core";

export const documents = pgTable("documents", { name: text("name").primaryKey() });
