// openid-client on every way to a token that needs no special TLS. Usage: oauth_client.mjs ISSUER RESOURCE
// Standard input: one line with the clients as JSON, then one with the address that the browser was sent back to, after the
// line {"authorize": …} came. The last line printed is what was got. NODE_EXTRA_CA_CERTS names the authority of TLS.
import { createInterface } from "node:readline";
import * as oidc from "openid-client";

const [issuer, resource] = process.argv.slice(2);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const read = async () => JSON.parse((await lines.next()).value);
const say = (value) => console.log(JSON.stringify(value));
const { service, signed, application } = await read();

const nonces = [];
async function spy(url, options) {
  const answer = await fetch(url, options);
  if (answer.headers.has("dpop-nonce")) nonces.push([new URL(url).pathname, answer.status]);
  return answer;
}
const known = (id, authentication) =>
  oidc.discovery(new URL(issuer), id, {}, authentication, { algorithm: "oauth2", [oidc.customFetch]: spy });
async function models(config, token, DPoP) {
  const answer = await oidc.fetchProtectedResource(
    config, token, new URL("/v1/models", resource), "GET", undefined, undefined, { DPoP });
  return (await answer.json()).data.map((model) => model.id);
}
const refusal = async (attempt) => {
  try {
    await attempt();
    return "not refused";
  } catch (error) {
    return error.error ?? error.cause?.[0]?.parameters?.error ?? error.message;
  }
};

const got = {};
const basic = await known(service.id, oidc.ClientSecretBasic(service.secret));
const loose = await oidc.clientCredentialsGrant(basic, { scope: "models.read", resource });
got.basic = [loose.token_type, loose.scope, await models(basic, loose.access_token)];
const post = await known(service.id, oidc.ClientSecretPost(service.secret));
got.post = (await oidc.clientCredentialsGrant(post)).token_type;
got.refusals = [
  await refusal(() => oidc.clientCredentialsGrant(basic, { scope: "nonsense" })),
  await refusal(() => oidc.clientCredentialsGrant(basic, { resource: "https://other.example" })),
  await refusal(() => models(basic, "no.token")),
];

const key = await crypto.subtle.importKey("jwk", signed.jwk, { name: "Ed25519" }, false, ["sign"]);
const asserting = await known(signed.id, oidc.PrivateKeyJwt(key));
got.assertion = await models(asserting, (await oidc.clientCredentialsGrant(asserting)).access_token);

const handle = oidc.getDPoPHandle(basic, await oidc.randomDPoPKeyPair());
nonces.length = 0;
const bound = await oidc.clientCredentialsGrant(basic, {}, { DPoP: handle });
got.bound = [bound.token_type, await models(basic, bound.access_token, handle)];
got.nonces = [...nonces];
got.unproven = await refusal(() => models(basic, bound.access_token));

const before = await oidc.tokenIntrospection(basic, loose.access_token);
await oidc.tokenRevocation(basic, loose.access_token);
got.active = [before.active, (await oidc.tokenIntrospection(basic, loose.access_token)).active];

const app = await known(application.id, oidc.None());
const pkceCodeVerifier = oidc.randomPKCECodeVerifier();
const expectedState = oidc.randomState();
say({
  authorize: oidc.buildAuthorizationUrl(app, {
    redirect_uri: application.redirect,
    scope: "models.read",
    resource,
    state: expectedState,
    code_challenge: await oidc.calculatePKCECodeChallenge(pkceCodeVerifier),
    code_challenge_method: "S256",
  }).href,
});
const { callback } = await read();
const checks = { pkceCodeVerifier, expectedState };
const elsewhere = new URL(callback);
elsewhere.searchParams.set("iss", "https://other.example");
got.mixed_up = await refusal(() => oidc.authorizationCodeGrant(app, elsewhere, checks));
const session = await oidc.authorizationCodeGrant(app, new URL(callback), checks);
const next = await oidc.refreshTokenGrant(app, session.refresh_token);
got.session = [session.scope, await models(app, next.access_token)];

const exchanged = await oidc.genericGrantRequest(basic, "urn:ietf:params:oauth:grant-type:token-exchange", {
  subject_token: next.access_token,
  subject_token_type: "urn:ietf:params:oauth:token-type:access_token",
});
const { sub, act } = JSON.parse(Buffer.from(exchanged.access_token.split(".")[1], "base64url"));
got.exchanged = [sub, act.sub];
got.reuse = [
  await refusal(() => oidc.refreshTokenGrant(app, session.refresh_token)),
  await refusal(() => oidc.refreshTokenGrant(app, next.refresh_token)),
];

say(got);
process.exit(0);
