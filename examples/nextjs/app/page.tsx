import { getServerSession } from "next-auth";
import Link from "next/link";
import { authOptions } from "../auth";
import { Documents } from "./documents";
import { Outbox } from "./outbox";

export default async function Page() {
  const session = await getServerSession(authOptions);
  if (!session?.user?.email) return <Link href="/api/auth/signin">Sign in</Link>;
  return (
    <Outbox account={session.user.email}>
      <Documents />
    </Outbox>
  );
}
