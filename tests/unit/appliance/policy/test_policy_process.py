"""The policy process's service: answers by message, status, and what a lost gateway leaves behind: nothing."""

import asyncio
import contextlib
import hashlib
import time

import msgspec
import pytest

from appliance.authority.journal import JournalUnavailable
from appliance.config import Configuration
from appliance.errors import LinkClosed
from appliance.ipc.edges import EdgeCodec
from appliance.messages.policy import (
    CheckKey,
    Denied,
    Extend,
    Granted,
    KeyHolder,
    NonceKey,
    PolicyStatus,
    Reserve,
    Resume,
    Revocations,
    Settle,
    UseOnce,
)
from appliance.policy import service as service_module
from appliance.policy import store as store_module
from appliance.policy.locations import load_credentials_key
from appliance.policy.service import PolicyService
from appliance.policy.store import DefinitionsStore
from appliance.processes import policy as policy_module
from appliance.processes.policy import build_quota_book
from audit.entry import parse_canonical
from audit.permissions import verify_permitted
from security.clients import ClientDefinition
from security.errors import SecurityUnavailable
from security.policy.decisions import PolicyDecider
from security.policy.replay import ReplayMemory
from security.registry.database import Database
from security.registry.snapshot import read_definitions
from security.registry.tables import CLIENTS, STATIC_KEYS
from security.scopes import Role
from security.settings import PolicySettings
from security.static_keys import digest_static_key
from security.users import UserDefinition
from tests.support.controls import control
from tests.support.definitions import KEY, Registry
from tests.support.waiting import GIVE_UP_S

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

    async def serve(self, handle):
        while (message := await self._incoming.get()) is not None:
            handle(message)
        raise LinkClosed("ended by the test")

    def tell(self, message):
        self._incoming.put_nowait(self._up.decode(self._down.encode(message)))

    async def answer(self):
        return await self._next(lambda message: not isinstance(message, PolicyStatus | Revocations | NonceKey))

    async def revocations(self):
        return await self._next(lambda message: isinstance(message, Revocations))

    async def nonce_key(self):
        return await self._next(lambda message: isinstance(message, NonceKey))

    async def _next(self, is_wanted):
        while True:
            message = await asyncio.wait_for(self._outgoing.get(), GIVE_UP_S)
            if is_wanted(message):
                return message

    async def ask(self, message):
        self.tell(message)
        return await self.answer()

    async def status(self):
        return await self._next(lambda message: isinstance(message, PolicyStatus))

    async def end(self):
        self._incoming.put_nowait(None)
        with contextlib.suppress(LinkClosed):
            await self.serving


@pytest.fixture
def registry(tmp_path):
    opened = Registry(tmp_path / "clients.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def client(registry):
    return registry.create(ClientDefinition(name="demo", models=("tiny",)), actor="t").client


@pytest.fixture
def book():
    return build_quota_book(SETTINGS)


@pytest.fixture
async def store(tmp_path, registry, monkeypatch):
    monkeypatch.setattr(store_module, "MIN_LOOK_INTERVAL_S", 0.0)
    opened = DefinitionsStore(Database.open(tmp_path / "clients.sqlite"), max_age_s=0.5)
    yield opened
    opened.close()


async def test_what_was_created_just_after_a_look_is_found(store, registry, monkeypatch):
    """The database is asked again, as soon as it may be; a client that was told its name is known."""
    monkeypatch.setattr(store_module, "MIN_LOOK_INTERVAL_S", 0.02)
    await store.look()
    created = registry.create(ClientDefinition(name="quick", models=("tiny",)), actor="t").client
    assert created.client_id in (await store.look()).clients


@pytest.fixture
def service(store, book):
    made = PolicyService(store, PolicyDecider(book), ReplayMemory(clock=lambda: 0.0), KEY)
    store.subscribe(made.tell_changed)
    return made


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


async def test_denials_carry_their_code(gateway, client, registry, store):
    """For the model, the number of requests, the client."""
    assert (await gateway.ask(reserve(client, model="other"))).code == "model_not_allowed"
    for number in range(2):
        assert isinstance(await gateway.ask(reserve(client, number)), Granted)
    denied = await gateway.ask(reserve(client, 3))
    assert isinstance(denied, Denied)
    assert (denied.correlation, denied.code, denied.retry_after_s) == (3, "too_many_requests", 1)
    registry.disable(client.client_id, actor="t")
    await store.look()
    assert (await gateway.ask(reserve(client))).code == "client_disabled"


async def test_a_client_created_a_moment_ago_is_known(gateway, client, registry):
    """Its first request must not be refused for half a second."""
    await gateway.ask(reserve(client))
    new = registry.create(ClientDefinition(name="new"), actor="t").client
    assert isinstance(await gateway.ask(reserve(new)), Granted)


async def test_who_is_not_known_holds_up_nobody_else(gateway, client, registry, store, monkeypatch):
    """While the definitions are looked at again, what is known is answered; then all that waited is, after one look."""
    await gateway.ask(reserve(client))
    look, looks, may_look = store.look, [], asyncio.Event()

    async def slow_look():
        looks.append(1)
        await may_look.wait()
        return await look()

    monkeypatch.setattr(store, "look", slow_look)
    new = registry.create(ClientDefinition(name="new"), actor="t").client
    gateway.tell(reserve(new, 1))
    gateway.tell(CheckKey(2, bytes(32), "192.0.2.7"))
    assert (await gateway.ask(UseOnce(3, b"a" * 32, 60))).is_first
    assert isinstance(await gateway.ask(reserve(client, 4)), Granted)
    gateway.tell(reserve(new, 5))
    assert len(looks) == 1
    may_look.set()
    answers = [await gateway.answer() for _ in range(3)]
    assert [(one.correlation, type(one)) for one in answers] == [(1, Granted), (2, Denied), (5, Granted)]
    assert len(looks) <= 2


async def test_a_person_of_the_provider_is_in_no_definition_to_look_for(gateway, client, store, monkeypatch):
    """Each of their requests would wait for the database."""
    await gateway.ask(reserve(client))

    async def look():
        raise AssertionError("there is nothing to find")

    monkeypatch.setattr(store, "look", look)
    assert isinstance(await gateway.ask(reserve(client, subject="oidc:ada")), Granted)


async def test_a_gateway_whose_client_cannot_be_looked_for_is_cut_off(service, client, store, monkeypatch):
    """Rather than refused in good faith: the definitions cannot be read, and its link ends."""
    gateway = PlayedGateway(service)
    await gateway.ask(reserve(client))

    async def look():
        raise SecurityUnavailable("the disk is gone")

    monkeypatch.setattr(store, "look", look)
    gateway.tell(reserve(client, client_id="who", subject="who"))
    await asyncio.wait_for(gateway.serving, GIVE_UP_S)


async def test_grants_tell_what_is_left(gateway, client):
    """Of the tightest limit, after this request."""
    granted = await gateway.ask(reserve(client))
    assert (granted.tokens_left.limit, granted.tokens_left.remaining) == (1000, 850)
    assert 0 < granted.tokens_left.reset_ms <= 9000
    assert (granted.requests_left, granted.day_tokens_left) == (None, None)
    denied = await gateway.ask(reserve(client, prompt_tokens=900))
    assert (denied.code, denied.tokens_left.limit) == ("rate_limit", 1000)


async def test_a_request_of_an_earlier_life_goes_on(gateway, client, book):
    """With all that it holds, though nobody here had let it start."""
    granted = await gateway.ask(Resume(reserve(client, 5), 200))
    assert (granted.correlation, granted.output_tokens, book.tokens_reserved) == (5, 200, 250)
    assert (await gateway.ask(Extend(6, granted.reservation))).output_tokens == 250
    gateway.tell(Settle(granted.reservation, 50, 210))
    assert (await gateway.ask(Extend(7, granted.reservation))).code == "quota_exhausted"


@control("3.1.11", "3.9.2", "AC-2(1)", "AC-2(5)", "AC-2(13)", "AC-12")
async def test_every_gateway_hears_of_a_revocation_at_once(service, gateway, client, registry, store):
    """And a new one hears of all that stand before anything else."""
    assert await gateway.revocations() == Revocations(())
    told = await gateway.nonce_key()
    assert (len(told.key), abs(told.began_at - time.time()) < 60) == (32, True)
    registry.revocations.revoke("token", "jti-1", registry.database.now + 600, actor="t")
    registry.disable(client.client_id, actor="t")
    await store.look()
    told = await gateway.revocations()
    assert {(entry.kind, entry.value) for entry in told.entries} == {("token", "jti-1"), ("client", client.client_id)}
    other = PlayedGateway(service)
    assert await other.revocations() == told
    await other.end()


async def test_a_static_key_is_its_clients_from_its_networks(gateway, registry, client, store):
    """Revoked, expired, of a disabled client or from elsewhere it is nobody's, always in the same words."""
    issued = registry.keys.create(client.client_id, "k", networks=("192.0.2.0/24",), days=1, actor="t")
    ask = CheckKey(1, digest_static_key(issued.secret), "192.0.2.7")
    holder = await gateway.ask(ask)
    assert isinstance(holder, KeyHolder)
    assert (holder.client_id, holder.key_id, holder.role) == (client.client_id, issued.key.key_id, "user")
    elsewhere = await gateway.ask(msgspec.structs.replace(ask, address="192.0.3.7"))
    unknown = await gateway.ask(msgspec.structs.replace(ask, digest=bytes(32)))
    assert elsewhere == unknown == Denied(1, "invalid_key", "the key is not valid, or not from this address", 0)
    registry.disable(client.client_id, actor="t")
    await store.look()
    assert await gateway.ask(ask) == unknown
    registry.enable(client.client_id, actor="t")
    await store.look()
    assert isinstance(await gateway.ask(ask), KeyHolder)
    registry.keys.revoke([issued.key.key_id], actor="t")
    await store.look()
    assert await gateway.ask(ask) == unknown


@control("3.1.5", "AC-6", "IA-2")
async def test_a_static_key_of_a_client_that_got_another_role_is_nobodys(gateway, registry, client, store):
    """A string that may be read off a disk must not become an operator; nor be good again with the old role."""
    issued = registry.keys.create(client.client_id, "k", networks=("192.0.2.0/24",), days=1, actor="t")
    ask = CheckKey(1, digest_static_key(issued.secret), "192.0.2.7")
    assert isinstance(await gateway.ask(ask), KeyHolder)
    for role in (Role.OPERATOR, Role.USER):
        registry.roles.grant(client.client_id, role, actor="t")
        await store.look()
        assert isinstance(await gateway.ask(ask), Denied)


async def test_a_key_that_an_earlier_release_left_to_an_operator_is_nobodys(gateway, registry, client, store):
    """Its row says that it is good: the client's role says that it is not."""
    issued = registry.keys.create(client.client_id, "k", networks=("192.0.2.0/24",), days=1, actor="t")
    registry.roles.grant(client.client_id, Role.OPERATOR, actor="t")
    with registry.database.transaction() as connection:
        connection.execute(STATIC_KEYS.update().values(revoked_at=None))
    await store.look()
    assert isinstance(await gateway.ask(CheckKey(1, digest_static_key(issued.secret), "192.0.2.7")), Denied)


async def test_a_key_of_what_became_an_application_is_nobodys(gateway, registry, client, store):
    """An application acts for people only, and a key is no person's, whatever its row says."""
    issued = registry.keys.create(client.client_id, "k", networks=("192.0.2.0/24",), days=1, actor="t")
    ask = CheckKey(1, digest_static_key(issued.secret), "192.0.2.7")
    for kind, answer in (("application", Denied), ("service", KeyHolder)):
        with registry.database.transaction() as connection:
            connection.execute(CLIENTS.update().values(kind=kind))
        registry.disable(client.client_id, actor="t")  # Else nobody looks again.
        registry.enable(client.client_id, actor="t")
        await store.look()
        assert isinstance(await gateway.ask(ask), answer)


@control("3.5.4", "IA-2(8)")
async def test_what_was_used_is_not_used_again(gateway):
    """By whichever gateway."""
    assert (await gateway.ask(UseOnce(1, b"a" * 32, 60))).is_first
    assert not (await gateway.ask(UseOnce(2, b"a" * 32, 60))).is_first
    assert (await gateway.ask(UseOnce(3, b"b" * 32, 60))).is_first


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
    monkeypatch.setattr(service_module, "STATUS_INTERVAL_S", 0.001)
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


async def test_without_definitions_the_link_ends(service, book, client, store, registry):
    """The gateway then says that policy is away: nobody is let in on a guess, and the process lives on."""
    gateway = PlayedGateway(service)
    await gateway.status()
    registry.execute("UPDATE clients SET role = 'root'")
    registry.execute("UPDATE marks SET value = value + 1 WHERE name = 'generation'")
    gateway.tell(reserve(client, client_id="somebody"))
    await asyncio.wait_for(gateway.serving, GIVE_UP_S)
    assert book.num_reservations == 0


async def test_what_is_in_force_is_recorded_once_and_until_it_is_durable(monkeypatch, registry):
    """The limits and their digest, the generation of the definitions, which goes back where somebody put them back, and which
    privileged accounts are one person's alone.
    """
    monkeypatch.setattr(policy_module, "RECORD_RETRY_S", 0.0)
    registry.users.create(UserDefinition(login="bob", name="Bob", role=Role.ADMIN), actor="os:ada")
    definitions = read_definitions(registry.database)
    record = policy_module.build_loaded_record(SETTINGS, definitions)
    event = parse_canonical(record)
    own = event["unmapped"]["casemate"]
    assert own["generation"] == definitions.generation
    assert (own["num_privileged"], own["num_privileged_by_one"], own["privileged_by_one"]) == (1, 1, "bob")
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
    await asyncio.wait_for(policy_module.record_loaded(journal, record), GIVE_UP_S)
    assert journal.attempts == [record] * 3


class Started:
    """What the process is given at its start: nobody connects, and it is drained as soon as it is ready."""

    def __init__(self, state):
        self.config = Configuration(engines=[], state_dir=str(state))
        self.draining = asyncio.Event()
        self.listeners = []

    def on_link(self, _role, _serve):
        pass

    async def ready(self):
        self.draining.set()


async def test_an_auditor_that_comes_late_ends_no_start(tmp_path, monkeypatch):
    """What was read before the wait for it is too old then: it is read again, and the process goes on."""
    monkeypatch.setattr(policy_module, "take_short_turns", lambda: None)
    monkeypatch.setattr(policy_module.gc, "freeze", lambda: None)
    load_credentials_key(tmp_path)

    async def wait_long(_book, _journal):
        monkeypatch.setattr(store_module, "STALE_S", -3600.0)

    monkeypatch.setattr(policy_module, "recover_quotas", wait_long)
    member = Started(tmp_path)
    await asyncio.wait_for(policy_module.serve(member), GIVE_UP_S)
    assert member.draining.is_set()
