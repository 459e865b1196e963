"""People sign in at the company's OpenID provider: sent there by their browser, and let in for the ID token that it gives for their
code (OpenID Connect Core section 3.1).

PKCE, `state` and `nonce` always (RFC 9700 section 2.1); a sign-in belongs to the browser that began it, by a cookie. What the
provider says of somebody is kept beside the refresh tokens, so that a session goes on without asking it again.
"""

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl, quote_plus, urlencode

import msgspec
import structlog

from appliance.authority.foreign_issuers import split_address
from appliance.authority.sign_in import SignInRefused
from security.errors import KeyUnusable, MalformedDocument, SecurityUnavailable, TokenRejected
from security.issuer_settings import UpstreamSettings
from security.json_object import parse_json_object
from security.keys import load_private_file
from security.oauth.https_client import HttpsClient
from security.oauth.https_source import HttpsJwksSource
from security.oauth.id_token import IdTokenCheck, Vouched
from security.oauth.key_ring import KeyRing
from security.oauth.refresh_store import RefreshStore
from security.oauth.waiting import WaitingRoom
from security.scopes import Role
from security.tls import MinimumVersion
from security.users import User

LIFETIME_S = 600
"""How long somebody may take at the provider."""
MAX_WAITING = 10_000
MAX_WAITING_PER_SOURCE = 500
MAX_ANSWER_BYTES = 64 << 10
MAX_QUERY_CHARS = 8192

log = structlog.get_logger(__name__)


class Begun(msgspec.Struct, frozen=True):
    """A sign-in that waits for its browser to come back."""

    state: str
    nonce: str
    verifier: str
    then: str

    def __repr__(self) -> str:
        return "Begun(<hidden>)"


class UpstreamDesk:
    """Owner of the sign-ins that are under way."""

    def __init__(
        self,
        settings: UpstreamSettings,
        store: RefreshStore,
        redirect_uri: str,
        *,
        minimum_version: MinimumVersion = "1.3",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Raises: KeyUnusable."""
        address, authority = split_address(settings.address), Path(settings.ca_certificate)
        self.settings = settings
        self._store = store
        self._redirect_uri = redirect_uri
        self._clock = clock
        self._secret = _load_secret(settings.client_secret_file)
        self._exchange = HttpsClient(
            settings.token_endpoint,
            authority,
            max_bytes=MAX_ANSWER_BYTES,
            connect_to=address,
            minimum_version=minimum_version,
        )
        keys = HttpsJwksSource(settings.jwks_url, authority, connect_to=address, minimum_version=minimum_version)
        self._check = IdTokenCheck(
            KeyRing(keys),
            issuer=settings.issuer,
            client_id=settings.client_id,
            roles={theirs: Role(ours) for theirs, ours in settings.roles.items()},
            default_role=None if settings.default_role is None else Role(settings.default_role),
            tenant=settings.fallback_tenant,
            tenant_claim=settings.tenant_claim,
            tenants=settings.tenants,
            clock=clock,
        )
        self._waiting: WaitingRoom[Begun] = WaitingRoom(
            lifetime_s=LIFETIME_S, max_waiting=MAX_WAITING, max_per_source=MAX_WAITING_PER_SOURCE, clock=clock
        )

    def begin(self, then: str, address: str) -> tuple[str, str]:
        """Send somebody at this address to the provider. Returns: the cookie of this sign-in, and where to send the browser."""
        cookie = secrets.token_urlsafe(32)
        begun = Begun(
            state=secrets.token_urlsafe(24),
            nonce=secrets.token_urlsafe(24),
            verifier=secrets.token_urlsafe(48),
            then=then,
        )
        self._waiting.add(cookie, begun, address)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(begun.verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": self.settings.client_id,
            "redirect_uri": self._redirect_uri,
            "scope": self.settings.scope,
            "state": begun.state,
            "nonce": begun.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        return cookie, f"{self.settings.authorization_endpoint}?{urlencode(query)}"

    async def finish(self, cookie: str | None, query: str) -> tuple[User, str]:
        """The person who came back, and where they wanted to go.

        Raises: SignInRefused, SecurityUnavailable.
        """
        begun = self._waiting.take(cookie)
        if begun is None:
            raise SignInRefused("", "no sign-in of this browser waits for an answer")
        code = self._read_answer(query, begun)
        try:
            vouched = await self._check.verify(await self._fetch_id_token(code, begun), begun.nonce)
        except TokenRejected as error:
            raise SignInRefused("", f"the provider's ID token is refused: {error}") from None
        user = self._build_user(vouched)
        self._store.note_person(user)
        return user, begun.then

    def _read_answer(self, query: str, begun: Begun) -> str:
        """RFC 6749 section 4.1.2, RFC 9207 section 2.4."""
        try:
            pairs = parse_qsl(query[: MAX_QUERY_CHARS + 1], keep_blank_values=True, errors="strict", max_num_fields=32)
        except ValueError:
            raise SignInRefused("", "the provider's answer cannot be read") from None
        answer = dict(pairs)
        if len(answer) != len(pairs) or len(query) > MAX_QUERY_CHARS:
            raise SignInRefused("", "the provider's answer repeats a parameter, or is too long")
        if not hmac.compare_digest(answer.get("state", "").encode(), begun.state.encode()):
            raise SignInRefused("", "the answer is of another sign-in")
        if answer.get("iss", self.settings.issuer) != self.settings.issuer:
            raise SignInRefused("", "the answer is of another provider")
        if "error" in answer or not answer.get("code"):
            raise SignInRefused("", "the provider refused")
        return answer["code"]

    async def _fetch_id_token(self, code: str, begun: Begun) -> str:
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": begun.verifier,
        }
        headers = {"Content_Type": "application/x-www-form-urlencoded"}
        if self._secret is None:
            fields["client_id"] = self.settings.client_id
        else:
            pair = f"{quote_plus(self.settings.client_id)}:{quote_plus(self._secret)}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        status, body = await self._exchange.ask("POST", urlencode(fields).encode(), **headers)
        try:
            answer = parse_json_object(body)
        except MalformedDocument:
            answer = {}
        if status >= 500 or (status != 200 and answer.get("error") != "invalid_grant"):
            # Not the person's fault: our registration there is wrong, or the provider is not well.
            error = str(answer.get("error", ""))[:64]
            raise SecurityUnavailable(f"{self._exchange.url} answered {status} {error!r}")
        token = answer.get("id_token")
        if status != 200 or not isinstance(token, str):
            raise SignInRefused("", "the provider gave no ID token for the code")
        return token

    def _build_user(self, vouched: Vouched) -> User:
        name = self.settings.name
        return User(
            user_id=f"{name}:{vouched.subject}",
            login=vouched.login,
            name=vouched.name,
            role=vouched.role,
            tenant=vouched.tenant,
            models=None,
            password_hash="",
            password_set_at=0,
            must_change_password=False,
            old_password_hashes=(),
            totp_secret=None,
            created_at=int(self._clock()),
            unlocked_at=0,
            disabled_at=None,
            granted_by=f"provider:{name}",
            approved_by=None,
        )


def _load_secret(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        secret = load_private_file(Path(path)).decode("ascii").strip()
    except ValueError:
        secret = ""
    if not 0 < len(secret) <= 512 or not secret.isprintable():
        raise KeyUnusable(f"{path}: expected the client's secret in one line of ASCII")
    return secret
