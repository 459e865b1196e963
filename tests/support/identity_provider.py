"""A company's identity provider, played: key sets over TLS as Entra, ADFS, Okta and Keycloak publish them, and tokens as they
sign them. RS256 written out over pyca/cryptography, so that nothing of ours is on this side.
"""

import base64
import hashlib
import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from security.tls import build_server_context, provision_identity

HOST = "login.corp.example"
AUDIENCE = "api://casemate"
ISSUERS = {
    "rfc9068": "https://login.corp.example",
    "entra": "https://login.microsoftonline.example/8f5c6a3e-tenant/v2.0",
    "adfs": "https://login.corp.example/adfs/services/trust",
    "okta": "https://login.corp.example/oauth2/default",
    "keycloak": "https://login.corp.example/realms/staff",
}


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Key:
    """An RSA key with an id."""

    def __init__(self, kid):
        self.kid = kid
        self.private = rsa.generate_private_key(65537, 2048)

    def jwk(self, product):
        numbers = self.private.public_key().public_numbers()
        entry = {"kty": "RSA", "kid": self.kid, "use": "sig", "n": b64(numbers.n.to_bytes(256, "big")), "e": "AQAB"}
        if product in ("okta", "keycloak", "rfc9068"):
            entry["alg"] = "RS256"
        if product in ("entra", "adfs", "keycloak"):
            entry |= {"x5t": b64(bytes(20)), "x5c": [base64.b64encode(bytes(64)).decode()]}
        if product == "entra":
            entry["issuer"] = ISSUERS["entra"]
        return entry

    def sign(self, header, claims):
        head = {"alg": "RS256", "kid": self.kid, **header}
        signed = f"{b64(json.dumps(head).encode())}.{b64(json.dumps(claims).encode())}"
        return f"{signed}.{b64(self.private.sign(signed.encode(), padding.PKCS1v15(), SHA256()))}"


class IdentityProvider:
    """One product on a loopback port, with a certificate of its own authority for HOST."""

    def __init__(self, folder, product):
        self.product = product
        self.issuer = ISSUERS[product]
        self.keys = [Key("key-1")]
        self._encryption_key = Key("enc-1")
        self.num_fetches = 0
        self.answer = None
        """Instead of the key set: status, headers and body."""
        self.identity = provision_identity(folder, [HOST])
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                provider.num_fetches += 1
                status, headers, body = provider.answer or (
                    200,
                    {"Content-Type": "application/json"},
                    provider.key_set(),
                )
                if self.path != "/keys":
                    status, body = 404, b""
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                status, answer = provider.exchange(self.headers.get("Authorization"), dict(parse_qsl(body)))
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        tls = build_server_context(self.identity, minimum_version="1.2")

        class Server(ThreadingHTTPServer):
            daemon_threads = False

            def finish_request(self, request, client_address):
                with tls.wrap_socket(request, server_side=True) as wrapped:
                    super().finish_request(wrapped, client_address)

            def handle_error(self, *_):
                """A client that does not trust us hangs up."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def port(self):
        return self._server.server_address[1]

    def close(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def key_set(self):
        entries = [key.jwk(self.product) for key in self.keys]
        if self.product == "keycloak":  # Its sets hold a key for encryption too.
            entries.append({**self._encryption_key.jwk("keycloak"), "use": "enc", "alg": "RSA-OAEP"})
        return json.dumps({"keys": entries}).encode()

    def exchange(self, authorization, form):
        """A token endpoint, where there is one."""
        return 404, {}

    def section(self, **changes):
        """The section of the configuration by which an appliance trusts it."""
        values = {
            "name": "corp", "issuer": self.issuer, "audience": AUDIENCE, "profile": self.product, "tenant": "acme",
            "jwks_url": f"https://{HOST}/keys", "jwks_address": f"127.0.0.1:{self.port}",
            "ca_certificate": str(self.identity.ca_certificate), **changes,
        }  # fmt: skip
        lines = ["[[issuers]]", *(f"{name} = {json.dumps(value)}" for name, value in values.items())]
        lines += ["[issuers.roles]", '"LLM.User" = "user"', "[issuers.scopes]", '"Casemate.Ask" = "inference"']
        lines += ['"Casemate.List" = "models.read"']
        return "\n".join(lines) + "\n"

    def access_token(self, *, key=None, header=None, **changes):
        """As the product's documentation shows them, with the claims that are of no use here too."""
        now, token_id = int(time.time()), secrets.token_hex(8)
        claims = {"iss": self.issuer, "aud": AUDIENCE, "sub": "00u1ada", "iat": now, "nbf": now, "exp": now + 3600}
        typ = {"typ": "JWT"}
        scope = "Casemate.Ask Casemate.List"
        match self.product:
            case "rfc9068":
                typ = {"typ": "at+jwt"}
                claims |= {
                    "jti": token_id,
                    "client_id": "app",
                    "scope": f"openid {scope}",
                    "groups": ["LLM.User", "staff"],
                }
            case "entra":
                claims |= {
                    "azp": "app", "azpacr": "1", "oid": "oid-1", "uti": token_id, "scp": scope, "roles": ["LLM.User"],
                    "tid": "8f5c6a3e-tenant", "ver": "2.0", "preferred_username": "ada@corp.example", "rh": "0.x",
                }  # fmt: skip
            case "adfs":
                claims |= {
                    "appid": "app", "apptype": "Public", "jti": token_id, "scp": scope, "role": "LLM.User",
                    "authmethod": "urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport", "ver": "1.0",
                }  # fmt: skip
            case "okta":
                typ = {}
                claims |= {
                    "ver": 1, "jti": f"AT.{token_id}", "cid": "app", "uid": "00u1ada", "scp": scope.split(" "),
                    "groups": ["Everyone", "LLM.User"], "auth_time": now,
                }  # fmt: skip
                del claims["nbf"]
            case "keycloak":
                claims |= {
                    "jti": token_id, "typ": "Bearer", "azp": "app", "sid": "s", "acr": "1", "scope": f"openid {scope}",
                    "realm_access": {"roles": ["offline_access", "LLM.User"]}, "preferred_username": "ada",
                    "resource_access": {"account": {"roles": ["manage-account"]}},
                }  # fmt: skip
        claims |= changes
        claims = {name: value for name, value in claims.items() if value is not ...}
        return (key or self.keys[0]).sign({**typ, **(header or {})}, claims)

    def id_token(self):
        """What the same product gives an application about its user: never good at an API."""
        common = {"aud": AUDIENCE, "nonce": "n-0S6_WzA2Mj", "auth_time": int(time.time())}
        match self.product:
            case "keycloak":
                return self.access_token(typ="ID", scope=..., realm_access=..., **common)
            case "okta":
                return self.access_token(cid=..., scp=..., amr=["pwd"], at_hash="x", **common)
            case "rfc9068":
                return self.access_token(header={"typ": "JWT"}, client_id=..., scope=..., **common)
            case _:
                return self.access_token(azp=..., appid=..., scp=..., **common)


class OpenIdProvider(IdentityProvider):
    """Keycloak's side of a sign-in: what its page would send the browser back with, and its token endpoint."""

    CLIENT = "casemate"
    SECRET = "s3cret of the provider's"

    def __init__(self, folder):
        super().__init__(folder, "keycloak")
        self.codes = {}
        self.outage = None
        """Instead of an exchange: status and answer."""

    def upstream_section(self, secret_file, **changes):
        """The section of the configuration by which people sign in here."""
        values = {
            "name": "corp", "issuer": self.issuer, "client_id": self.CLIENT, "client_secret_file": str(secret_file),
            "authorization_endpoint": f"https://{HOST}/auth", "token_endpoint": f"https://{HOST}/token",
            "jwks_url": f"https://{HOST}/keys", "address": f"127.0.0.1:{self.port}", "tenant": "acme",
            "ca_certificate": str(self.identity.ca_certificate), **changes,
        }  # fmt: skip
        lines = ["[upstream]", *(f"{name} = {json.dumps(value)}" for name, value in values.items())]
        return "\n".join([*lines, "[upstream.roles]", '"LLM.User" = "user"', '"LLM.Auditor" = "auditor"']) + "\n"

    def sign_in(self, location, **changes):
        """What a browser that was sent to `location` is sent back with, once the person has signed in. Returns: a query."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
        assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
        assert asked["client_id"] == self.CLIENT
        code = secrets.token_urlsafe(16)
        self.codes[code] = (asked, changes)
        return urlencode({"code": code, "state": asked["state"], "session_state": "x", "iss": self.issuer})

    def exchange(self, authorization, form):
        if self.outage is not None:
            return self.outage
        pair = base64.b64decode((authorization or "").removeprefix("Basic ")).decode()
        if pair != urlencode({self.CLIENT: self.SECRET}).replace("=", ":"):
            return 401, {"error": "invalid_client"}
        asked, changes = self.codes.pop(form.get("code", ""), (None, {}))
        challenge = b64(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if asked is None or challenge != asked["code_challenge"] or form["redirect_uri"] != asked["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        now = int(time.time())
        claims = {
            "iss": self.issuer, "aud": self.CLIENT, "sub": "f:1:ada", "iat": now, "exp": now + 300, "typ": "ID",
            "azp": self.CLIENT, "nonce": asked["nonce"], "auth_time": now, "at_hash": "x", "acr": "1", "name": "Ada <L>",
            "preferred_username": "ada", "groups": ["LLM.User"], **changes.get("claims", {}),
        }  # fmt: skip
        claims = {name: value for name, value in claims.items() if value is not ...}
        key = changes.get("key", self.keys[0])
        token = key.sign({"typ": "JWT", **changes.get("header", {})}, claims)
        return 200, {"access_token": "opaque", "token_type": "Bearer", "expires_in": 300, "id_token": token}
