// Signed tokens and their public keys from the package that Better Auth, Clerk and Auth.js sign with.
// In: the claims. Out: {jwks, tokens: {<algorithm>: <token>}}.
import { exportJWK, generateKeyPair, SignJWT } from "jose";

const claims = JSON.parse(process.argv[2]);
const keys = [];
const tokens = {};
for (const alg of ["RS256", "PS256", "ES256", "EdDSA"]) {
  const { publicKey, privateKey } = await generateKeyPair(alg);
  keys.push({ ...(await exportJWK(publicKey)), kid: alg, alg, use: "sig" });
  const token = new SignJWT(claims).setProtectedHeader({ alg, kid: alg }).setIssuedAt();
  tokens[alg] = await token.setExpirationTime("1m").sign(privateKey);
}
process.stdout.write(JSON.stringify({ jwks: { keys }, tokens }));
