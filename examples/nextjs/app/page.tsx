"use client";

import { Progress, useSubmit } from "./outbox";

export default function Reports() {
  const { submit, ...progress } = useSubmit("/api/reports");

  const ask = (form: FormData) => submit({ report: form.get("report") as "sales" | "stock" });

  return (
    <form action={ask}>
      <h1>Ask for a report</h1>
      <select name="report" aria-label="Report">
        <option>sales</option>
        <option>stock</option>
      </select>
      <button>Ask</button>
      <Progress {...progress} />
    </form>
  );
}
