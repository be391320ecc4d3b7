"use client";

import { useOutbox, useSubmit } from "inngest-outbox-client/react";

/** Uploads a document, hands it over for indexing, and shows the result. */
export function Documents() {
  const outbox = useOutbox();
  const { submit, waiting, event, error } = useSubmit();

  const post = (form: FormData) => submit(outbox.upload(form.get("file") as File));

  return (
    <form action={post}>
      <h1>Index a document</h1>
      <input type="file" name="file" aria-label="Document" required />
      <button>Index</button>
      <p role="status">{waiting ? "waiting for the network" : (event?.run?.status ?? event?.state)}</p>
      {event?.run && <pre>{JSON.stringify(event.run.output, null, 2)}</pre>}
      {error instanceof Error && <p role="alert">{error.message}</p>}
    </form>
  );
}
