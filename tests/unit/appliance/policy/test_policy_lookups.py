"""What the policy process answers where no tokens are asked for: lookups, and which models somebody may use."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.errors import LinkClosed
from appliance.ipc.edges import EdgeCodec
from appliance.messages.policy import Denied, FilterModels, Left, Lookup, LookupGranted, ModelsAllowed, Reserve
from appliance.policy.service import PolicyService
from appliance.policy.store import DefinitionsStore
from security.clients import Client, ClientDefinition
from security.policy.decisions import PolicyDecider
from security.policy.limits import Limits, LimitTable
from security.policy.quotas import QuotaBook
from security.policy.replay import ReplayMemory
from security.registry.database import Database
from tests.support.definitions import KEY, Registry
from tests.support.waiting import GIVE_UP_S

ANSWERS = Denied | LookupGranted | ModelsAllowed


class Asker:
    """A gateway's end of a link; every message crosses the real codec of the edge."""

    def __init__(self) -> None:
        self._questions: asyncio.Queue[Any] = asyncio.Queue()
        self._answers: asyncio.Queue[Any] = asyncio.Queue()
        self._up, self._down = EdgeCodec("policy", "gateway"), EdgeCodec("gateway", "policy")

    def send(self, message: msgspec.Struct) -> None:
        self._answers.put_nowait(self._down.decode(self._up.encode(message)))

    async def serve(self, handle: Callable[[Any], None]) -> None:
        while (message := await self._questions.get()) is not None:
            handle(self._up.decode(self._down.encode(message)))
        raise LinkClosed("ended by the test")

    async def ask(self, message: msgspec.Struct) -> Any:
        self._questions.put_nowait(message)
        while True:
            answer = await asyncio.wait_for(self._answers.get(), GIVE_UP_S)
            if isinstance(answer, ANSWERS):
                return answer

    def end(self) -> None:
        self._questions.put_nowait(None)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    opened = Registry(tmp_path / "clients.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def book() -> QuotaBook:
    limits = {"client": Limits(requests_per_minute=2)}
    return QuotaBook(LimitTable((), limits), block_tokens=8, clock_ns=lambda: 10**9)  # type: ignore[arg-type]


@pytest.fixture
async def asker(tmp_path: Path, registry: Registry, book: QuotaBook) -> AsyncIterator[Asker]:
    store = DefinitionsStore(Database.open(tmp_path / "clients.sqlite"), max_age_s=0.5)
    service = PolicyService(store, PolicyDecider(book), ReplayMemory(clock=lambda: 0.0), KEY)
    asker = Asker()
    serving = asyncio.create_task(service.run(asker))
    yield asker
    asker.end()
    with pytest.raises(LinkClosed):
        await serving
    store.close()


def asked_by(client: Client, correlation: int, model: str = "tiny") -> Reserve:
    return Reserve(correlation, client.client_id, client.client_id, client.tenant, client.role, model, 0, 0)


async def test_a_lookup_is_counted_and_reserves_nothing(asker: Asker, registry: Registry, book: QuotaBook) -> None:
    """It tells what is left, with a refusal too; one for a model that is not the client's is none."""
    client = registry.create(ClientDefinition(name="demo", models=("tiny",)), actor="t").client
    refused = await asker.ask(Lookup(asked_by(client, 1, model="other")))
    assert (refused.correlation, refused.code, refused.requests_left) == (1, "model_not_allowed", None)
    assert await asker.ask(Lookup(asked_by(client, 2))) == LookupGranted(2, Left(2, 1, 30_000))
    assert await asker.ask(Lookup(asked_by(client, 3))) == LookupGranted(3, Left(2, 0, 60_000))
    denied = await asker.ask(Lookup(asked_by(client, 4)))
    assert (denied.correlation, denied.code, denied.retry_after_s) == (4, "rate_limit", 30)
    assert denied.requests_left == Left(2, 0, 60_000)
    assert book.num_reservations == 0


async def test_models_are_those_that_whoever_asks_may_use(asker: Asker, registry: Registry) -> None:
    """In their order; clients that came a moment ago are looked for first, and one who is nobody has none."""
    models = ("b", "tiny", "a")
    bound = registry.create(ClientDefinition(name="bound", models=("tiny", "a")), actor="t").client
    assert await asker.ask(FilterModels(asked_by(bound, 3, ""), models)) == ModelsAllowed(3, ("tiny", "a"))
    free = registry.create(ClientDefinition(name="free"), actor="t").client
    assert await asker.ask(FilterModels(asked_by(free, 4, ""), models)) == ModelsAllowed(4, models)
    nobody = msgspec.structs.replace(asked_by(free, 5, ""), client_id="who", subject="who")
    assert await asker.ask(FilterModels(nobody, models)) == ModelsAllowed(5, ())
