"""The policy process's service: answers by message, status, and what a lost gateway leaves behind: nothing."""

import asyncio
import contextlib
import hashlib

import msgspec
import pytest

from appliance.authority.journal import JournalUnavailable
from appliance.errors import LinkClosed
from appliance.ipc.edges import EdgeCodec
from appliance.messages.policy import Denied, Extend, Granted, PolicyStatus, Reserve, Settle
from appliance.processes import policy as policy_module
from appliance.processes.policy import PolicyService, build_quota_book
from audit.entry import parse_canonical
from audit.permissions import verify_permitted
from security.clients import ClientDefinition
from security.errors import SecurityUnavailable
from security.policy.decisions import PolicyDecider
from security.policy.definitions import ClientDefinitions
from security.registry import ClientRegistry
from security.settings import PolicySettings

SETTINGS = PolicySettings(
    max_concurrent_requests_per_client=2, tokens_per_minute_per_client=1000, quota_block_tokens=100
)


class PlayedGateway:
    """A gateway's end of a link; every message crosses the real codec of the edge."""

    def __init__(self, service):
        self._incoming = asyncio.Queue()
        self._outgoing = asyncio.Queue()
        self._up, self._down = EdgeCodec("policy", "gateway"), EdgeCodec("gateway", "policy")
        self.serving = asyncio.create_task(service.run(self))

    def send(self, message):
        self._outgoing.put_nowait(self._down.decode(self._up.encode(message)))

    async def receive(self):
        message = await self._incoming.get()
        if message is None:
            raise LinkClosed("ended by the test")
        return message

    def tell(self, message):
        self._incoming.put_nowait(self._up.decode(self._down.encode(message)))

    async def answer(self):
        while True:
            message = await asyncio.wait_for(self._outgoing.get(), 5)
            if not isinstance(message, PolicyStatus):
                return message

    async def ask(self, message):
        self.tell(message)
        return await self.answer()

    async def status(self):
        while True:
            message = await asyncio.wait_for(self._outgoing.get(), 5)
            if isinstance(message, PolicyStatus):
                return message

    async def end(self):
        self._incoming.put_nowait(None)
        with contextlib.suppress(LinkClosed):
            await self.serving


@pytest.fixture
def registry(tmp_path):
    opened = ClientRegistry.open(tmp_path / "clients.sqlite", bytes(32))
    yield opened
    opened.close()


@pytest.fixture
def client(registry):
    return registry.create(ClientDefinition(name="demo", models=("tiny",)), actor="t").client


@pytest.fixture
def book():
    return build_quota_book(SETTINGS)


@pytest.fixture
def service(tmp_path, registry, book):
    definitions = ClientDefinitions(tmp_path / "clients.sqlite", max_age_s=1e-9)
    yield PolicyService(PolicyDecider(definitions, book))
    definitions.close()


@pytest.fixture
async def gateway(service):
    played = PlayedGateway(service)
    yield played
    await played.end()


def reserve(client, correlation=1, **changes):
    message = Reserve(correlation, client.client_id, client.client_id, client.tenant, client.role, "tiny", 50, 250)
    return msgspec.structs.replace(message, **changes)


async def test_a_request_from_start_to_end(gateway, client, book):
    """Reserve, Extend, Settle; correlations come back."""
    granted = await gateway.ask(reserve(client, 7))
    assert (granted.correlation, granted.output_tokens) == (7, 100)
    assert await gateway.ask(Extend(8, granted.reservation)) == Granted(8, granted.reservation, 200)
    gateway.tell(Settle(granted.reservation, 50, 120))
    unknown = await gateway.ask(Extend(9, granted.reservation))
    assert (unknown.correlation, unknown.code) == (9, "quota_exhausted")
    assert (book.num_reservations, book.tokens_reserved) == (0, 0)


async def test_denials_carry_their_code(gateway, client, registry):
    """For the model, the number of requests, the client."""
    assert (await gateway.ask(reserve(client, model="other"))).code == "model_not_allowed"
    for number in range(2):
        assert isinstance(await gateway.ask(reserve(client, number)), Granted)
    denied = await gateway.ask(reserve(client, 3))
    assert isinstance(denied, Denied)
    assert (denied.correlation, denied.code, denied.retry_after_s) == (3, "too_many_requests", 1)
    registry.disable(client.client_id, actor="t")
    assert (await gateway.ask(reserve(client))).code == "client_disabled"


async def test_a_lost_gateway_leaves_no_reservation_behind(service, gateway, client, book):
    """And another's are not touched."""
    other = PlayedGateway(service)
    lost, kept = await other.ask(reserve(client)), await gateway.ask(reserve(client))
    assert (await gateway.ask(Extend(1, lost.reservation))).code == "quota_exhausted"
    await other.end()
    assert book.num_reservations == 1
    assert isinstance(await gateway.ask(Extend(1, kept.reservation)), Granted)
    assert isinstance(await gateway.ask(reserve(client)), Granted)


async def test_status_comes_at_once_and_again(service, gateway, client, monkeypatch):
    """So that a gateway knows policy is alive; a gateway that is gone does not disturb the others."""
    monkeypatch.setattr(policy_module, "STATUS_INTERVAL_S", 0.001)
    assert await gateway.status() == PolicyStatus(0, 0)
    await gateway.ask(reserve(client))
    broken = PlayedGateway(service)
    await broken.status()

    def fail(_message):
        raise LinkClosed("gone")

    broken.send = fail
    reporting = asyncio.create_task(service.report())
    assert await gateway.status() == PolicyStatus(1, 150)
    assert await gateway.status() == PolicyStatus(1, 150)
    reporting.cancel()
    await broken.end()


async def test_without_definitions_the_link_ends(book, client):
    """The gateway then says that policy is away: nobody is let in on a guess, and the process lives on."""

    class Unreadable:
        def find(self, _client_id):
            raise SecurityUnavailable("for the test")

    service = PolicyService(PolicyDecider(Unreadable(), book))
    gateway = PlayedGateway(service)
    gateway.tell(reserve(client))
    await asyncio.wait_for(gateway.serving, 5)
    assert book.num_reservations == 0


async def test_the_limits_in_force_are_recorded_once_and_until_it_is_durable(monkeypatch):
    """With the limits themselves and their digest, as an event that policy may append."""
    monkeypatch.setattr(policy_module, "RECORD_RETRY_S", 0.0)
    event = parse_canonical(policy_module.build_loaded_record(SETTINGS))
    verify_permitted("policy", "event", event)
    assert '"tokens_per_minute_per_client":1000' in event["status_detail"]
    assert event["app"]["uid"] == hashlib.sha256(event["status_detail"].encode()).hexdigest()

    class SlowJournal:
        def __init__(self):
            self.attempts = []

        async def record(self, record):
            self.attempts.append(record)
            if len(self.attempts) < 3:
                raise JournalUnavailable("for the test")
            return 7

    journal = SlowJournal()
    await asyncio.wait_for(policy_module.record_loaded(journal, SETTINGS), 5)
    assert journal.attempts == [policy_module.build_loaded_record(SETTINGS)] * 3
