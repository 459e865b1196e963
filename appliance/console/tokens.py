"""The console as a client of the authority: codes, refresh tokens, revocation, introspection (RFC 6749, 7009, 7662).

It authenticates by a key of its own (`private_key_jwt`), and every token is bound to the key of the session that it is for (RFC
9449); a nonce that the authority asks for is repeated. Answers come over TLS from the configured address and are still read
strictly.
"""

import time
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec

from appliance.console.errors import SessionOver, SignInFailed
from security.errors import SecurityUnavailable
from security.keys import SigningPrivateKey
from security.oauth.https_client import HttpsAnswer, HttpsOrigin
from security.oauth.metadata import INTROSPECTION_PATH, REVOCATION_PATH, TOKEN_PATH
from security.oauth.proving import ASSERTION_TYPE, ProofKey, make_assertion
from security.scopes import Role

REFRESH_AHEAD_S = 30
"""An access token that ends so soon is replaced before it is used."""
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_Token = Annotated[str, msgspec.Meta(min_length=1, max_length=8192)]


class _Granted(msgspec.Struct, frozen=True, kw_only=True):
    """RFC 6749 section 5.1, as far as it is needed."""

    access_token: _Token
    token_type: str
    expires_in: Annotated[int, msgspec.Meta(ge=1, le=86_400)]
    refresh_token: _Token
    scope: Annotated[str, msgspec.Meta(max_length=1024)]


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a token is for, as the authority tells it (RFC 7662 section 2.2)."""

    active: bool
    sub: Annotated[str, msgspec.Meta(max_length=256)] = ""
    username: Annotated[str, msgspec.Meta(max_length=256)] = ""
    tenant: Annotated[str, msgspec.Meta(max_length=256)] = ""
    roles: Annotated[tuple[Role, ...], msgspec.Meta(max_length=1)] = ()
    auth_time: int = 0


class Tokens(msgspec.Struct, frozen=True):
    """What a session holds. Never in a page, a log or an error."""

    access_token: str
    refresh_token: str
    scope: str
    expires_at: float

    def __repr__(self) -> str:
        return "Tokens(<hidden>)"


class AuthorityClient:
    """Asks one authority."""

    def __init__(
        self,
        origin: HttpsOrigin,
        client_id: str,
        key: SigningPrivateKey,
        redirect_uri: str,
        *,
        issuer: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.client_id = client_id
        self.redirect_uri = redirect_uri
        self.issuer = issuer
        self._origin = origin
        self._key = key
        self._clock = clock

    async def exchange_code(self, code: str, verifier: str, proof_key: ProofKey) -> Tokens:
        """Tokens for a code (RFC 6749 section 4.1.3). Raises: SignInFailed, SecurityUnavailable."""
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": verifier,
        }
        answer = await self._ask_token(fields, proof_key)
        if answer.status != 200:
            raise SignInFailed(f"the authority gave no tokens for the code: {_error_of(answer)}")
        return self._read(answer)

    async def refresh(self, tokens: Tokens, proof_key: ProofKey) -> Tokens:
        """The next tokens of a session (section 6). Raises: SessionOver, SecurityUnavailable."""
        fields = {"grant_type": "refresh_token", "refresh_token": tokens.refresh_token}
        answer = await self._ask_token(fields, proof_key)
        if answer.status != 200:
            raise SessionOver(f"the authority ended the session: {_error_of(answer)}")
        return self._read(answer)

    async def revoke(self, tokens: Tokens) -> None:
        """End the session at the authority as well (RFC 7009). Raises: SecurityUnavailable."""
        answer = await self._ask(REVOCATION_PATH, {"token": tokens.refresh_token, "token_type_hint": "refresh_token"})
        if answer.status != 200:
            raise SecurityUnavailable(f"the authority did not revoke: {answer.status}")

    async def describe(self, tokens: Tokens) -> Person:
        """Whom an access token is for. Raises: SignInFailed, SecurityUnavailable."""
        answer = await self._ask(INTROSPECTION_PATH, {"token": tokens.access_token})
        try:
            person = msgspec.json.decode(answer.body, type=Person)
        except msgspec.MsgspecError as error:
            raise SecurityUnavailable(f"the authority's introspection cannot be read: {error}") from error
        if answer.status != 200 or not person.active or not person.sub or not person.roles:
            raise SignInFailed("the authority does not know its own token")
        return person

    async def _ask_token(self, fields: dict[str, str], proof_key: ProofKey) -> HttpsAnswer:
        """With a proof; once more with a nonce if the authority asks for one (RFC 9449 section 8)."""
        answer = await self._ask(TOKEN_PATH, fields, DPoP=proof_key.prove("POST", self.issuer + TOKEN_PATH))
        nonce = answer.headers.get("DPoP-Nonce")
        if answer.status == 400 and nonce and _error_of(answer) == "use_dpop_nonce":
            proof = proof_key.prove("POST", self.issuer + TOKEN_PATH, nonce=nonce)
            answer = await self._ask(TOKEN_PATH, fields, DPoP=proof)
        if answer.status == 429 or answer.status >= 500:
            raise SecurityUnavailable(f"the authority answered {answer.status}")
        return answer

    async def _ask(self, path: str, fields: dict[str, str], **headers: str) -> HttpsAnswer:
        identified = {
            **fields,
            "client_id": self.client_id,
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": make_assertion(self._key, self.client_id, self.issuer, now=self._clock()),
        }
        return await self._origin.ask("POST", path, urlencode(identified).encode(), {**_FORM, **headers})

    def _read(self, answer: HttpsAnswer) -> Tokens:
        try:
            granted = msgspec.json.decode(answer.body, type=_Granted)
        except msgspec.MsgspecError as error:
            raise SecurityUnavailable(f"the authority's tokens cannot be read: {error}") from error
        if granted.token_type.lower() != "dpop":
            raise SecurityUnavailable("the authority's tokens are not bound to our key")
        return Tokens(granted.access_token, granted.refresh_token, granted.scope, self._clock() + granted.expires_in)


def _error_of(answer: HttpsAnswer) -> str:
    """The OAuth error of an answer, a word of at most 64 characters."""
    try:
        body: Any = msgspec.json.decode(answer.body)
    except msgspec.MsgspecError:
        return str(answer.status)
    error = body.get("error") if isinstance(body, dict) else None
    return error[:64] if isinstance(error, str) and error.isprintable() else str(answer.status)
