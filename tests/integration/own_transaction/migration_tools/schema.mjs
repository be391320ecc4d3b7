// The table that the application wants: it has a column more.
import { integer, pgTable, text } from "drizzle-orm/pg-core";

export const documents = pgTable("documents", { name: text("name").primaryKey(), size: integer("size") });
