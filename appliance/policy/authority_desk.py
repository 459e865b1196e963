"""Answers to the authority: who is this, void that token, store this password. It also brings the keys that check admin tokens."""

from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import structlog

from appliance.messages.policy import (
    AddPasskey,
    Done,
    FindPrincipal,
    Found,
    PublishKeys,
    Revocations,
    RevokeToken,
    SetPassword,
)
from appliance.policy.service import PeerLink, PolicyService
from appliance.policy.store import DefinitionsStore
from security.errors import KeysUnavailable, SecurityFault, SecurityUnavailable
from security.policy.definitions import Definitions
from security.registry.database import Database, Source
from security.registry.revocations import RevocationRegistry
from security.registry.users import UserRegistry
from security.users import Passkey

log = structlog.get_logger(__name__)


class AuthorityLink(PeerLink, Protocol):
    """What is needed of `appliance.ipc.link.Link` to answer."""

    async def receive(self) -> Any:
        """Raises: LinkClosed."""


class AuthorityDesk:
    """Serves one authority at a time. Also a `security.oauth.key_ring.JwksSource`."""

    def __init__(self, store: DefinitionsStore, service: PolicyService, credentials_key: bytes) -> None:
        self._store = store
        self._service = service
        self._credentials_key = credentials_key
        self._key_set: bytes | None = None

    async def fetch(self) -> bytes:
        """The authority's key set, as it told it. Raises: KeysUnavailable."""
        if self._key_set is None:
            raise KeysUnavailable("the authority has not told its keys yet")
        return self._key_set

    async def run(self, link: AuthorityLink) -> None:
        """Serve a link until it ends. Raises: LinkClosed."""
        number = self._service.add_listener(link)
        try:
            link.send(Revocations((await self._store.look()).revocations))
            while True:
                answer = await self._answer(await link.receive())
                if answer is not None:
                    link.send(answer)
        except SecurityUnavailable as error:
            log.error("definitions_unreadable", reason=str(error))
        finally:
            self._service.remove_listener(number)

    async def _answer(self, message: Any) -> msgspec.Struct | None:
        match message:
            case FindPrincipal():
                return Found(message.correlation, _find(await self._store.look(), message))
            case RevokeToken():
                return await self._do(
                    message,
                    lambda database: RevocationRegistry(database).revoke(
                        message.kind, message.value, message.expires_at, actor=message.actor
                    ),
                )
            case SetPassword():
                return await self._do(
                    message,
                    lambda database: UserRegistry(database, self._credentials_key).set_password(
                        message.user_id, message.password_hash, actor=f"user:{message.user_id}"
                    ),
                )
            case AddPasskey():
                return await self._do(
                    message,
                    lambda database: UserRegistry(database, self._credentials_key).add_passkey(
                        message.user_id,
                        Passkey(credential=message.credential, name=message.name, created_at=database.now),
                        actor=f"user:{message.user_id}",
                    ),
                )
            case PublishKeys():
                self._key_set = message.key_set
        return None

    async def _do(self, message: RevokeToken | SetPassword | AddPasskey, work: Callable[[Database], object]) -> Done:
        def change(database: Database) -> object:
            with database.asked_from(Source(*message.source) if message.source[0] else None):
                return work(database)

        try:
            await self._store.call(change)
        except SecurityFault as fault:
            log.error("change_failed", reason=str(fault))
            return Done(message.correlation, str(fault)[:1000])
        return Done(message.correlation)


def _find(definitions: Definitions, message: FindPrincipal) -> bytes | None:
    found = (
        definitions.clients.get(message.name)
        if message.kind == "client"
        else definitions.users.get(message.name) or definitions.find_login(message.name)
    )
    return None if found is None else msgspec.msgpack.encode(found)
