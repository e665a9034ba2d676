// A real OpenID Connect provider on the loopback, with three people: a teacher of two colleges, one of another, and a pupil.
// Says {"address": "http://127.0.0.1:PORT"} once it listens; ends when its standard input does.
import http from "node:http";
import Provider from "oidc-provider";

const people = {
  claire: { name: "Claire Weber", role: ["ENS"], etab: ["57001", "57002"] },
  denis: { name: "Denis Klein", role: ["ENS"], etab: ["57003"] },
  emma: { name: "Emma Muller", role: ["ELV"], etab: ["57001"] },
};

const server = http.createServer();
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: "mirabelle",
        application_type: "native",
        token_endpoint_auth_method: "none",
        grant_types: ["authorization_code"],
        response_types: ["code"],
        redirect_uris: ["http://127.0.0.1/sign-in/return"],
        post_logout_redirect_uris: ["http://127.0.0.1/"],
      },
    ],
    claims: { openid: ["sub", "name", "role", "etab"] },
    conformIdTokenClaims: false,
    cookies: { keys: ["only for tests"] },
    pkce: { required: () => true },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, ...people[id] }) }),
  });
  // The store's port is another on each machine (RFC 8252, 7.3).
  provider.Client.prototype.postLogoutRedirectUriAllowed = (uri) => uri.startsWith("http://127.0.0.1:");
  server.on("request", provider.callback());
  console.log(JSON.stringify({ address: issuer }));
});
process.stdin.on("end", () => process.exit(0)).resume();
