"use client";

import { OutboxClient } from "inngest-outbox-client";
import { OutboxProvider } from "inngest-outbox-client/react";
import { type ReactNode, useEffect, useState } from "react";

/** One client for the signed-in user. */
export function Outbox({ account, children }: { account: string; children: ReactNode }) {
  const [client, setClient] = useState<OutboxClient>();
  useEffect(() => {
    const made = new OutboxClient({ account });
    setClient(made);
    return () => made.close();
  }, [account]);
  return client && <OutboxProvider client={client}>{children}</OutboxProvider>;
}
