"""Whose structure is compiled next: clients take turns, each has one at a time, and what waits is bounded."""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

import msgspec
import structlog

from appliance.errors import LinkClosed
from appliance.grammars.child import CompileFault, CompileLimits, compile_apart
from appliance.grammars.settings import GrammarSettings
from appliance.messages.grammar import Compile, Compiled, CompileRefused
from runtime.structured.walking import Walker

log = structlog.get_logger(__name__)


class GatewayLink(Protocol):
    """What is needed of `appliance.ipc.link.Link`."""

    def send(self, message: msgspec.Struct) -> None:
        """Raises: LinkClosed."""

    async def receive(self) -> Any:
        """Raises: LinkClosed."""


class _Client:
    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.num_waiting = 0


class CompilerService:
    """Answers gateways."""

    def __init__(self, walkers: Mapping[str, Walker], settings: GrammarSettings) -> None:
        """`walkers`: by the model's served name."""
        self._walkers = walkers
        self._settings = settings
        self._limits = CompileLimits(
            settings.compile_timeout_s, settings.compile_memory_bytes, settings.max_grammar_bytes
        )
        self._slots = asyncio.Semaphore(settings.max_compiling)
        self._clients: dict[str, _Client] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, link: GatewayLink) -> None:
        """Serve one gateway until its link ends; what it had begun ends by its own limits. Raises: LinkClosed."""
        while True:
            task = asyncio.get_running_loop().create_task(self._answer(link, await link.receive()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, link: GatewayLink, message: Compile) -> None:
        try:
            answer: Compiled | CompileRefused = Compiled(message.correlation, await self._compile(message))
        except CompileFault as fault:
            log.info("grammar_refused", code=fault.code, model=message.model, chars=len(message.structure))
            answer = CompileRefused(message.correlation, fault.code, str(fault))
        try:
            link.send(answer)
        except LinkClosed:
            return

    async def _compile(self, message: Compile) -> bytes:
        walker = self._walkers.get(message.model)
        if walker is None:
            raise CompileFault("invalid_grammar", f"output of {message.model} cannot be constrained")
        if len(message.structure) > self._settings.max_structure_chars:
            limit = self._settings.max_structure_chars
            raise CompileFault(
                "grammar_too_large", f"it has {len(message.structure)} characters, at most {limit} are taken"
            )
        client = self._clients.setdefault(message.client_id, _Client())
        if client.num_waiting >= self._settings.max_waiting_per_client:
            raise CompileFault("compiler_busy", f"{client.num_waiting} grammars of this client wait already")
        client.num_waiting += 1
        try:
            async with client.turn, self._slots:
                work = partial(walker.compile, message.structure, self._limits.max_grammar_bytes)
                return await compile_apart(work, self._limits)
        finally:
            client.num_waiting -= 1
            if not client.num_waiting:
                del self._clients[message.client_id]
