import type { NextAuthOptions } from "next-auth";
import CredentialsProvider from "next-auth/providers/credentials";

/** Signs in whoever gives an e-mail address: for development only. Put your own provider here. */
export const authOptions: NextAuthOptions = {
  secret: process.env.NEXTAUTH_SECRET,
  session: { strategy: "jwt" },
  providers: [
    CredentialsProvider({
      name: "E-mail",
      credentials: { email: { label: "E-mail", type: "email" } },
      authorize: async (given) => (given?.email ? { id: given.email, email: given.email } : null),
    }),
  ],
};
