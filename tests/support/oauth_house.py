"""An authority with a service, an application and a person, and clients of it that sign what they like."""

import base64
import hashlib
import json
import secrets
from urllib.parse import urlencode

from security.clients import ClientDefinition
from security.oauth.algorithms import FOREIGN_MODELS
from security.oauth.interactions import AgreedGrant
from security.oauth.resource import AccessTokenValidator
from security.oauth.token_request import TokenRequest
from security.users import UserDefinition
from tests.support.authority import FORM, basic, build_authority, decide
from tests.support.definitions import Registry

NOW = 1_800_000_000
ISSUER = "https://authority.example:8444"
RESOURCE = "https://gateway.example:8443"
REDIRECT = "https://app.example/back"
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def sign(claims, key, header, algorithm=None):
    """A JWS over exactly these, whatever they are; `...` leaves a member out."""
    keep = lambda members: {name: value for name, value in members.items() if value is not ...}  # noqa: E731
    signed = encode(json.dumps(keep(header)).encode()) + b"." + encode(json.dumps(keep(claims)).encode())
    signature = FOREIGN_MODELS[algorithm or header["alg"]].sign(signed, key)
    return (signed + b"." + encode(signature)).decode()


def proof_by(key, clock, *, url=f"{ISSUER}/token", method="POST", header=None, algorithm="ES256", **claims):
    """A DPoP proof; unlike claims make unlike proofs."""
    made = {"jti": encode(repr(claims).encode()).decode(), "htm": method, "htu": url, "iat": int(clock.now), **claims}
    head = {"typ": "dpop+jwt", "alg": algorithm, "jwk": key.as_dict(private=False), **(header or {})}
    return sign(made, key, head, algorithm)


async def validate(issuer, token):
    """What a gateway makes of a token."""
    return await AccessTokenValidator(issuer.ring, issuer=ISSUER, audience=RESOURCE, clock=issuer.clock).validate(token)


class House:
    """An authority with a service, an application and a person."""

    def __init__(self, folder, clock, keys, **options):
        self.clock = clock
        self.registry = Registry(folder / "definitions.sqlite", clock=clock)
        self.authority, self.facts, self.refresh = build_authority(
            self.registry, keys, folder, issuer=ISSUER, resource=RESOURCE, clock=clock, **options
        )
        self.service = self.registry.create(ClientDefinition(name="service"), actor="t")
        self.app = self.registry.create(
            ClientDefinition(name="app", kind="application", auth_method="none", redirect_uris=(REDIRECT,)), actor="t"
        ).client
        self.user = self.registry.users.create(UserDefinition(login="ada", name="Ada"), actor="t").user

    def close(self):
        self.refresh.close()
        self.registry.close()

    def request(self, fields, *, auth=None, proofs=(), certificate=None, path="/token"):
        return TokenRequest(
            query="",
            content_type=FORM,
            authorization=(auth,) if auth else (),
            body=urlencode(fields, doseq=True).encode(),
            proofs=tuple(proofs),
            certificate=certificate,
            path=path,
        )

    def token(self, fields, **options):
        """A token request, by the application unless somebody else authenticates."""
        if not options.get("auth") and "client_id" not in fields and "client_assertion" not in fields:
            fields = {**fields, "client_id": self.app.client_id}
        answer = decide(self.authority, self.request(fields, **options))
        return answer.status, json.loads(answer.body), answer

    def refused(self, error, fields, **options):
        status, body, answer = self.token(fields, **options)
        assert (status, body["error"]) == (400, error), body
        assert answer.minted is None
        return body

    def by_service(self):
        return basic(self.service.client.client_id, self.service.secret)

    def code(self, **changes):
        values = {
            "client_id": self.app.client_id,
            "user_id": self.user.user_id,
            "redirect_uri": REDIRECT,
            "redirect_uri_was_given": True,
            "scope": "inference models.read",
            "challenge": CHALLENGE,
            "auth_time": int(self.clock.now),
            **changes,
        }
        code = secrets.token_urlsafe(32)
        self.authority.interactions.keep_code(code, AgreedGrant(**values))
        return code

    def exchange(self, code, **changes):
        fields = {
            "grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT, "code_verifier": VERIFIER,
        }  # fmt: skip
        return {name: value for name, value in {**fields, **changes}.items() if value is not None}

    def session(self, **options):
        status, body, _ = self.token(self.exchange(self.code()), **options)
        assert status == 200, body
        return body

    def ask(self, endpoint, fields, *, auth=None):
        """Another endpoint than the token's."""
        answer = decide(self.authority, self.request(fields, auth=auth), endpoint)
        return answer.status, json.loads(answer.body) if answer.body else None
