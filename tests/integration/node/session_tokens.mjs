// Session tokens from the packages that front ends use. In: a list of wishes, out: a list of tokens.
import { encode as encodeAuthJs } from "@auth/core/jwt";
import nextAuth from "next-auth/jwt";

const wishes = JSON.parse(process.argv[2]);
const tokens = [];
for (const { version, ...wish } of wishes) {
  const encode = version === "v4" ? nextAuth.encode : encodeAuthJs;
  tokens.push(await encode(wish));
}
process.stdout.write(JSON.stringify(tokens));
