"""Clients take turns at the compiler, and one with a thousand structures delays its own."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from appliance.grammars import service
from appliance.grammars.service import CompilerService
from appliance.grammars.settings import GrammarSettings
from appliance.messages.grammar import Compile, Compiled, CompileRefused
from runtime.structured.vocabulary import GrammarVocabulary
from runtime.structured.walking import Walker
from tests.support.gateway_peers import MemoryLink, link_pair

SETTINGS = GrammarSettings(max_compiling=2, max_waiting_per_client=3, max_structure_chars=1024)
WALKER = Walker(GrammarVocabulary([b"a", b""], [1], vocab_size=2))


class Compiling:
    """Stands for the children: each ends when it is told to."""

    def __init__(self) -> None:
        self.open: list[asyncio.Future[bytes]] = []

    async def __call__(self, work: Callable[[], bytes], limits: object) -> bytes:
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.open.append(future)
        return await future


@pytest.fixture
def compiling(monkeypatch: pytest.MonkeyPatch) -> Compiling:
    made = Compiling()
    monkeypatch.setattr(service, "compile_apart", made)
    return made


async def serve(test: Callable[[MemoryLink], Awaitable[None]]) -> None:
    served = CompilerService({"model": WALKER}, SETTINGS)
    theirs, ours = link_pair("compiler")
    running = asyncio.create_task(served.run(ours))
    try:
        await test(theirs)
    finally:
        running.cancel()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_client_has_one_at_a_time_and_others_are_not_behind_it(compiling: Compiling) -> None:
    """Three of one client and one of another: the other's is the second to begin."""

    async def test(link: MemoryLink) -> None:
        for number, client in enumerate(("greedy", "greedy", "greedy", "modest")):
            link.send(Compile(number, client, "model", "{}"))
        await settle()
        assert len(compiling.open) == 2
        compiling.open[1].set_result(b"modest's")
        assert await link.receive() == Compiled(3, b"modest's")
        assert len(compiling.open) == 2
        compiling.open[0].set_result(b"first")
        assert await link.receive() == Compiled(0, b"first")
        await settle()
        assert len(compiling.open) == 3

    await serve(test)


async def test_what_waits_of_one_client_is_bounded(compiling: Compiling) -> None:
    """The fourth is told to come back, and another client is served."""

    async def test(link: MemoryLink) -> None:
        for number in range(4):
            link.send(Compile(number, "greedy", "model", "{}"))
        refused = await link.receive()
        assert (refused.correlation, refused.code) == (3, "compiler_busy")
        link.send(Compile(9, "modest", "model", "{}"))
        await settle()
        assert len(compiling.open) == 2

    await serve(test)


@pytest.mark.parametrize(
    ("change", "code"),
    [({"model": "other"}, "invalid_grammar"), ({"structure": "x" * 1025}, "grammar_too_large")],
)
async def test_what_is_refused_before_a_child_is_made(compiling: Compiling, change: dict[str, Any], code: str) -> None:
    """A model whose vocabulary is not known, a text too long."""

    async def test(link: MemoryLink) -> None:
        link.send(Compile(**({"correlation": 1, "client_id": "c", "model": "model", "structure": "{}"} | change)))
        answer = await link.receive()
        assert isinstance(answer, CompileRefused)
        assert answer.code == code
        assert not compiling.open

    await serve(test)
