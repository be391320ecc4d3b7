import { getServerSession } from "next-auth";
import Link from "next/link";
import type { ReactNode } from "react";
import { authOptions } from "../auth";
import { Outbox } from "./outbox";

export const metadata = { title: "Outbox" };

export default async function Layout({ children }: { children: ReactNode }) {
  const account = (await getServerSession(authOptions))?.user?.email;
  return (
    <html lang="en">
      <body>
        {account ? (
          <Outbox account={account}>{children}</Outbox>
        ) : (
          <Link href="/api/auth/signin">Sign in</Link>
        )}
      </body>
    </html>
  );
}
