"use client";

import { Progress, useOutbox, useSubmit } from "../outbox";

export default function Documents() {
  const outbox = useOutbox();
  const { submit, ...progress } = useSubmit();

  const index = (form: FormData) => submit(outbox.upload(form.get("file") as File));

  return (
    <form action={index}>
      <h1>Index a document</h1>
      <input type="file" name="file" aria-label="Document" required />
      <button>Index</button>
      <Progress {...progress} />
    </form>
  );
}
