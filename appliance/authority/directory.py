"""Who exists, as the authority asks policy: nothing is remembered here, so a change takes effect with the next question."""

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import msgspec

from appliance.gateway.errors import PeerUnavailable
from appliance.gateway.peers.links import Link
from appliance.gateway.peers.questions import Questions
from appliance.messages.policy import (
    AddPasskey,
    Done,
    FindPrincipal,
    Found,
    PublishKeys,
    Revocations,
    RevokeToken,
    SetPassword,
    Source,
)
from security.clients import Client
from security.errors import SecurityUnavailable
from security.oauth.revocations import RevocationList
from security.users import User

TIMEOUT_S = 8.0
_T = TypeVar("_T", Client, User)


class Directory:
    """The definitions of clients and people, and what is to be changed in them."""

    def __init__(self, key_set: Callable[[], bytes]) -> None:
        """`key_set` gives what is published, so that policy can check tokens without a network."""
        self._questions = Questions("policy_unavailable", "policy", TIMEOUT_S)
        self._key_set = key_set
        self._decoders = {kind: msgspec.msgpack.Decoder(kind) for kind in (Client, User)}
        self.revocations = RevocationList()
        self.people_elsewhere: Callable[[str], User | None] | None = None
        """Who knows people instead of policy, where they sign in at a provider."""

    @property
    def is_connected(self) -> bool:
        """There is a policy to ask."""
        return self._questions.connected

    async def run(self, link: Link) -> None:
        """Serve one link until it ends. Raises: LinkClosed."""
        link.send(PublishKeys(self._key_set()))
        self._questions.attach(link)
        try:
            while True:
                message = await link.receive()
                if isinstance(message, Revocations):
                    self.revocations.replace(message.entries)
                else:
                    self._questions.answer(message.correlation, message)
        finally:
            self._questions.detach(link)

    def publish_keys(self) -> None:
        """The key set has changed."""
        self._questions.tell(PublishKeys(self._key_set()))

    async def find_client(self, client_id: str) -> Client | None:
        """The client of this id. Raises: SecurityUnavailable."""
        return await self._find("client", client_id, Client)

    async def find_user(self, login: str) -> User | None:
        """The person of this login or id. Raises: SecurityUnavailable."""
        if self.people_elsewhere is not None:
            return self.people_elsewhere(login)
        return await self._find("user", login, User)

    async def revoke(self, kind: str, value: str, expires_at: int, *, actor: str, source: Source) -> None:
        """Void a token or session; every gateway knows when this returns. Raises: SecurityUnavailable."""
        assert kind in ("token", "session")
        await self._do(lambda number: RevokeToken(number, kind, value, expires_at, actor, source))  # type: ignore[arg-type]

    async def set_password(self, user_id: str, password_hash: str, source: Source) -> None:
        """Store a password that was checked. Raises: SecurityUnavailable."""
        await self._do(lambda number: SetPassword(number, user_id, password_hash, source))

    async def add_passkey(self, user_id: str, credential: bytes, name: str, source: Source) -> None:
        """Store a passkey that was checked. Raises: SecurityUnavailable."""
        await self._do(lambda number: AddPasskey(number, user_id, credential, name, source))

    async def _find(self, kind: Literal["client", "user"], name: str, wanted: type[_T]) -> _T | None:
        answer = await self._ask(lambda number: FindPrincipal(number, kind, name[:256]))
        if not isinstance(answer, Found):
            raise SecurityUnavailable("policy gave no definition")
        return None if answer.definition is None else self._decoders[wanted].decode(answer.definition)  # type: ignore[return-value]

    async def _do(self, build: Callable[[int], msgspec.Struct]) -> None:
        answer = await self._ask(build)
        if not isinstance(answer, Done) or answer.fault:
            raise SecurityUnavailable(f"policy did not do it: {getattr(answer, 'fault', '')}")

    async def _ask(self, build: Callable[[int], msgspec.Struct]) -> Any:
        try:
            return await self._questions.ask(build)
        except PeerUnavailable as fault:
            raise SecurityUnavailable(str(fault)) from fault
