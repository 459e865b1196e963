"""A gateway worker in this process, serving HTTP on a loopback port, between peers of `gateway_peers`."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import msgspec

from appliance.errors import LinkClosed
from appliance.gateway.api.health import Installation
from appliance.gateway.api.response_store import ResponseStore
from appliance.gateway.flow.bodies import BodyPolicy
from appliance.gateway.identity import Presented, Principal, QuotaNotice, TokenCheck, TokenRefused
from appliance.gateway.models import Models, ServedModel
from appliance.gateway.settings import GatewaySettings
from appliance.gateway.worker import Worker
from appliance.messages import control
from audit.ticket import new_ticket_key
from security.scopes import GRANTED_SCOPES, Scope
from tests.support.gateway_peers import (
    CONTEXT_LENGTH,
    FakeAuditor,
    FakeCompiler,
    FakeEngine,
    FakePolicy,
    FakeReader,
    Reply,
    link_pair,
)
from tests.support.model_folders import load_model
from tests.support.prompt_servers import prompt_servers
from tests.support.waiting import until
from tests.support.wire import close

TOKEN = "good-token"


def principal(
    client_id: str = "client-1", scopes: frozenset[str] = frozenset(GRANTED_SCOPES), tenant: str = "acme"
) -> Principal:
    return Principal(client_id, client_id, tenant, "user", scopes, "https://issuer", "key-1", "jti-1", 4_000_000_000)


class FakeTokens:
    """Tokens that are good, by name."""

    def __init__(self) -> None:
        self.good = {
            TOKEN: principal(),
            "other-client": principal("client-2"),
            "no-scope": principal(scopes=frozenset()),
            "models-only": principal(scopes=frozenset({Scope.MODELS_READ})),
        }

        self.check: TokenCheck | None = None
        """A real one, asked instead."""

    async def __call__(self, presented: Presented) -> Principal:
        if self.check is not None:
            return await self.check(presented)
        if presented.token not in self.good:
            raise TokenRefused("the token is not ours")
        return msgspec.structs.replace(self.good[presented.token], notice=QuotaNotice())


class Gateway:
    """A worker with its fakes, serving HTTP on a loopback port."""

    def __init__(
        self,
        model: ServedModel,
        settings: GatewaySettings,
        metrics_dir: Path | None = None,
        store_path: Path | None = None,
        bodies: BodyPolicy = BodyPolicy(),
    ) -> None:
        key = new_ticket_key()
        self.model = model
        self.engine = FakeEngine(key)
        self.auditor = FakeAuditor(key)
        self.auditor.on_ticket = self.engine.take_ticket
        self.policy = FakePolicy()
        self.compiler = FakeCompiler()
        self.reader = FakeReader()
        self.tokens = FakeTokens()
        self.states = [control.ProcessState(role, 0, "ready", 0) for role in control.ROLES if role != "supervisor"]
        self.worker = Worker(
            settings,
            Models([model]),
            self.tokens,
            served=[model.name, model.name],
            states=lambda: self.states,
            installation=Installation("development", [("confinement", "Processes run as one user.")], True),
            tls=None,
            store=ResponseStore(store_path or Path("unused"), bytes(32), settings.response_retention_s),
            metrics_dir=metrics_dir,
            bodies=bodies,
        )
        self.draining = asyncio.Event()
        self.drain_timeout_s = 5.0
        self.port = 0
        self.clients: list[asyncio.StreamWriter] = []
        """Connections of the test, closed at the end."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self.serving: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def spawn(self, work: Awaitable[Any]) -> None:
        async def run() -> None:
            with contextlib.suppress(LinkClosed):
                await work

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def connect_engine(self) -> None:
        ours, theirs = link_pair("engine")
        self.spawn(self.worker.desk.engines.run(ours))
        self.spawn(self.engine.run(theirs))

    def connect_auditor(self) -> None:
        ours, theirs = link_pair("auditor")
        self.spawn(self.worker.desk.auditor.run(ours))
        self.spawn(self.auditor.run(theirs))

    def connect_policy(self) -> None:
        ours, theirs = link_pair("policy")
        self.spawn(self.worker.desk.policy.run(ours))
        self.spawn(self.policy.run(theirs))

    def connect_compiler(self) -> None:
        ours, theirs = link_pair("compiler")
        self.spawn(self.worker.desk.compiler.run(ours))
        self.spawn(self.compiler.run(theirs))

    def connect_reader(self) -> None:
        ours, theirs = link_pair("reader")
        self.spawn(self.worker.desk.reader.run(ours))
        self.spawn(self.reader.run(theirs))

    async def start(self) -> None:
        self.connect_engine()
        self.connect_auditor()
        self.connect_policy()
        self.connect_compiler()
        self.connect_reader()
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        self.port = listener.getsockname()[1]
        self.serving = asyncio.create_task(self.worker.serve([listener], self.draining, lambda: self.drain_timeout_s))
        await until(lambda: self.worker.server.started and self.is_connected)

    @property
    def is_connected(self) -> bool:
        """Every peer has said how it is."""
        desk = self.worker.desk
        engines = list(desk.engines)
        said = [desk.auditor.status, desk.policy.status, *(peer.status for peer in engines)]
        return bool(engines) and None not in said

    async def stop(self) -> None:
        assert self.serving is not None
        for writer in self.clients:
            await close(writer)
        self.drain_timeout_s = 0.0
        self.draining.set()
        await self.serving
        for link in (self.engine.link, self.auditor.link, self.policy.link, self.compiler.link, self.reader.link):
            if link is not None:
                link.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def ids(self, text: str, *, ends: bool = True) -> list[int]:
        """Token ids of an answer's text, one a byte, with the end-of-sequence token."""
        return [*text.encode(), *([261] if ends else [])]

    def says(self, text: str, **options: Any) -> None:
        """Let the engine answer with this text."""
        self.engine.reply = lambda submit, choice: Reply(self.ids(text), **options)


@contextlib.asynccontextmanager
async def running_gateway(
    folder: Path,
    metrics_dir: Path | None = None,
    store_path: Path | None = None,
    bodies: BodyPolicy = BodyPolicy(),
    context_length: int = CONTEXT_LENGTH,
    **settings: Any,
) -> AsyncIterator[Gateway]:
    """A gateway that serves until the block ends."""
    gateway = Gateway(load_model(folder), GatewaySettings(**settings), metrics_dir, store_path, bodies)
    gateway.engine.context_length = context_length
    with prompt_servers():
        await gateway.start()
        try:
            yield gateway
        finally:
            await gateway.stop()


def prompt_of(gateway: Gateway) -> str:
    """What the engine was asked last, as text."""
    prompt = gateway.engine.submits[-1].prompt
    ids = [int.from_bytes(prompt[at : at + 4], "little") for at in range(0, len(prompt), 4)]
    return b"".join(gateway.model.tokenizer.vocabulary.bytes_of(token_id) for token_id in ids).decode()
