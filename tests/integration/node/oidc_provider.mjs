// A real OpenID provider on a free port: it prints its issuer, and takes a new key at /rotate.
import { generateKeyPairSync, randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { Provider } from "oidc-provider";

const clients = JSON.parse(process.argv[2]);

function makeKey() {
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  return { ...privateKey.export({ format: "jwk" }), kid: randomUUID(), use: "sig", alg: "RS256" };
}

function makeProvider() {
  const provider = new Provider(issuer, {
    clients,
    jwks: { keys: [makeKey()] },
    cookies: { keys: ["cookie-key"] },
    claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name"] },
    findAccount: (_, sub) => ({
      accountId: sub,
      claims: () => ({ sub, email: `${sub}@example.com`, email_verified: true, name: "Ada" }),
    }),
  });
  return provider.callback();
}

const server = createServer((request, response) => {
  if (request.url === "/rotate") {
    handle = makeProvider();
    response.end();
  } else {
    handle(request, response);
  }
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const issuer = `http://127.0.0.1:${server.address().port}`;
let handle = makeProvider();
console.log(issuer);
