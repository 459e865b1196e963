"""An authority in this process over real definitions: everything but HTTP, TLS and the other processes."""

import base64
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from security.clients import Client
from security.errors import ClientRejected, SecurityUnavailable
from security.oauth.authority import Answer, Authority, Endpoint
from security.oauth.client_authentication import ClientAuthentication
from security.oauth.dpop_nonces import DpopNonces
from security.oauth.interactions import Interactions
from security.oauth.metadata import TOKEN_PATH
from security.oauth.refresh_store import RefreshStore
from security.oauth.revocations import Revocation, RevocationList
from security.oauth.sessions import SessionRules
from security.oauth.signing_keys import SigningKeys
from security.oauth.token_request import TokenRequest
from security.policy.replay import ReplayMemory
from security.users import Passkey, User
from tests.support.definitions import Registry

_T = TypeVar("_T")
FORM = "application/x-www-form-urlencoded"


def run_now(work: Coroutine[Any, Any, _T]) -> _T:
    """The result of a coroutine that has nothing to wait for; an error if it waits."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waited")


class PlayedFacts:
    """What policy would know and do, done at once."""

    def __init__(self, registry: Registry, clock: Callable[[], float]) -> None:
        self.registry = registry
        self.revocations = RevocationList(clock=clock)
        self._clock = clock
        self.is_away = False
        self.num_published = 0

    def publish_keys(self) -> None:
        self.num_published += 1

    async def find_client(self, client_id: str) -> Client | None:
        if self.is_away:
            raise SecurityUnavailable("for the test")
        return self.registry.find(client_id)

    async def find_user(self, login: str) -> User | None:
        return self.registry.users.find(login)

    async def set_password(self, user_id: str, password_hash: str, source: tuple[str, int]) -> None:
        self.registry.users.set_password(user_id, password_hash, actor=f"user:{user_id}")

    async def add_passkey(self, user_id: str, credential: bytes, name: str, source: tuple[str, int]) -> None:
        passkey = Passkey(credential=credential, name=name, created_at=int(self._clock()))
        try:
            self.registry.users.add_passkey(user_id, passkey, actor=f"user:{user_id}")
        except ClientRejected as refused:
            raise SecurityUnavailable(str(refused)) from refused

    async def revoke(self, kind: str, value: str, expires_at: int, *, actor: str, source: tuple[str, int]) -> None:
        self.revocations.add(Revocation(kind, value, int(self._clock()), expires_at))


def build_authority(
    registry: Registry,
    keys: SigningKeys,
    folder: Path,
    *,
    issuer: str,
    resource: str,
    clock: Callable[[], float] = time.time,
    binds_privileged: bool = False,
    client_authorities: tuple[Any, ...] = (),
    dpop_nonces: DpopNonces | None = None,
) -> tuple[Authority, PlayedFacts, RefreshStore]:
    """An authority with its facts and its refresh tokens, which the caller closes."""
    facts = PlayedFacts(registry, clock)
    refresh = RefreshStore.open(folder / "sessions.sqlite", clock=clock)
    used = ReplayMemory(clock=clock, known=refresh.find_used(), keep=refresh.note_used)
    authority = Authority(
        issuer=issuer,
        resource=resource,
        keys=keys,
        authentication=ClientAuthentication(
            registry.key,
            frozenset({issuer, issuer + TOKEN_PATH}),
            used=used,
            client_authorities=client_authorities,
            clock=clock,
        ),
        facts=facts,
        interactions=Interactions(clock=clock),
        refresh=refresh,
        rules=SessionRules(refresh_idle_s=3600, session_s=36_000, binds_privileged=binds_privileged),
        token_lifetime_s=600,
        revocations=facts.revocations,
        used=used,
        offers_certificates=True,
        dpop_nonces=dpop_nonces,
        clock=clock,
    )
    return authority, facts, refresh


def basic(client_id: str, secret: str) -> str:
    """An Authorization header."""
    return "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()


def decide(authority: Authority, request: TokenRequest, endpoint: Endpoint = "token") -> Answer:
    """The answer of an endpoint."""
    pending = authority.parse(endpoint, request)
    return run_now(authority.answer(pending, run_now(authority.look_up(pending))))
