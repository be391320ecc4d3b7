"use client";

import { type FollowedEvent, outboxHooks, useQueued } from "inngest-outbox-client/react";
import { OutboxClient } from "inngest-outbox-client";
import Link from "next/link";
import { type ReactNode, useEffect, useState } from "react";
import type { paths } from "../outbox";

export const { OutboxProvider, useOutbox, useSubmit } = outboxHooks<paths>();

/** One client for the signed-in user. */
export function Outbox({ account, children }: { account: string; children: ReactNode }) {
  const [client, setClient] = useState<OutboxClient<paths>>();
  useEffect(() => {
    const made = new OutboxClient<paths>({ account });
    setClient(made);
    return () => made.close();
  }, [account]);
  if (!client) return null;
  return (
    <OutboxProvider client={client}>
      <nav>
        <Link href="/">Reports</Link> <Link href="/documents">Documents</Link> <Queued />
      </nav>
      {children}
    </OutboxProvider>
  );
}

function Queued() {
  const count = useQueued();
  return count > 0 && <span>Waiting in this browser: {count}</span>;
}

/** How far a submission is. */
export function Progress({ waiting, event, error }: FollowedEvent & { waiting: boolean }) {
  return (
    <>
      <p role="status">{waiting ? "waiting for the service" : (event?.run?.status ?? event?.state)}</p>
      {event?.run && <pre>{JSON.stringify(event.run.output, null, 2)}</pre>}
      {error instanceof Error && <p role="alert">{error.message}</p>}
    </>
  );
}
