// drizzle-kit, as the page says.
import { defineConfig } from "drizzle-kit";

const { HOST, DATABASE } = process.env;
export default defineConfig({
  dialect: "postgresql",
  schema: "./schema.mjs",
  schemaFilter: ["public"],
  dbCredentials: { url: `postgresql://outbox@/${DATABASE}?host=${HOST}&options=-csearch_path%3Dpublic` },
});
