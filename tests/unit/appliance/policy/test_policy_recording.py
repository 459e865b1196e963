"""Changes reach the log, each once, whatever is away meanwhile; and the log gives back what was used."""

import asyncio
import itertools

import pytest

from appliance.auditor.usage import UsageBook
from appliance.authority.journal import Journal, JournalUnavailable
from appliance.errors import LinkClosed
from appliance.messages.audit import FetchUsage, LostRequest, Recorded, Usage, UsageRow
from appliance.messages.policy import AddPasskey, Done, RevokeToken, SetPassword
from appliance.policy import store as store_module
from appliance.policy.authority_desk import AuthorityDesk
from appliance.policy.recording import record_changes
from appliance.policy.store import DefinitionsStore
from appliance.policy.usage import charge_recorded_usage, correct_lost
from audit.entry import parse_canonical
from audit.permissions import verify_permitted
from security.clients import ClientDefinition
from security.policy.denials import QuotaDenial
from security.policy.limits import LimitRule, Limits, LimitTable
from security.policy.quotas import QuotaBook, QuotaGrant
from security.registry.database import Database
from security.users import UserDefinition
from tests.support.controls import control
from tests.support.definitions import KEY, Registry

NOON = 20_000 * 86_400 + 43_200


class PlayedAuditor:
    """The auditor's end of policy's link."""

    def __init__(self, rows=()):
        self.events = []
        self.rows = list(rows)
        self._indices = itertools.count()
        self._messages = asyncio.Queue()

    def send(self, message):
        if isinstance(message, FetchUsage):
            half = len(self.rows) // 2
            self._messages.put_nowait(Usage(message.correlation, self.rows[:half], False))
            self._messages.put_nowait(Usage(message.correlation, self.rows[half:], True))
            return
        event = parse_canonical(message.event)
        verify_permitted("policy", "event", event)
        self.events.append(event)
        self._messages.put_nowait(Recorded(message.correlation, next(self._indices)))

    async def receive(self):
        message = await self._messages.get()
        if message is None:
            raise LinkClosed("ended by the test")
        return message


@pytest.fixture
async def journal():
    made = Journal(timeout_s=20.0)
    auditor = PlayedAuditor()
    serving = asyncio.create_task(made.run(auditor))
    await made.connected()
    made.auditor = auditor
    yield made
    serving.cancel()


@control("3.1.7", "3.3.2", "3.4.3", "AC-2(4)", "AC-6(9)", "CM-3", "CM-5(1)", "SI-4(20)")
async def test_every_change_is_recorded_once_with_what_was_and_what_is(tmp_path, journal):
    """Under the kind of its own that policy alone may append."""
    registry = Registry(tmp_path / "d.sqlite")
    client_id = registry.create(ClientDefinition(name="x"), actor="os:ada").client.client_id
    registry.disable(client_id, actor="os:eve")
    store = DefinitionsStore(Database.open(tmp_path / "d.sqlite"), max_age_s=1)
    for _ in range(2):
        await record_changes(store, journal)
    own = [event["unmapped"]["casemate"] for event in journal.auditor.events]
    assert [one["kind"] for one in own] == ["client_created", "client_disabled"]
    assert '"disabled_at":null' in own[1]["before"]
    assert journal.auditor.events[1]["actor"]["user"]["name"] == "os:eve"
    assert journal.auditor.events[1]["user"]["uid"] == client_id
    assert registry.changes() == []
    registry.close()
    store.close()


class PlayedAuthority:
    """The authority's end of a link: asks, and keeps what it is answered."""

    def __init__(self, questions):
        self._questions = list(questions)
        self.answers = []

    def send(self, message):
        self.answers.append(message)

    async def receive(self):
        if not self._questions:
            raise LinkClosed("ended by the test")
        return self._questions.pop(0)


class NobodyElse:
    """A service without gateways."""

    def add_listener(self, _link):
        return 1

    def remove_listener(self, _number):
        return


@control("3.3.2", "AU-3", "AU-3(1)")
async def test_what_people_and_clients_change_at_the_authority_says_from_where(tmp_path, journal, monkeypatch):
    """A token revoked, a password, a passkey: the authority tells the address, as nobody else sees it."""
    monkeypatch.setattr(store_module, "MIN_LOOK_INTERVAL_S", 0.0)
    registry = Registry(tmp_path / "d.sqlite")
    user_id = registry.users.create(UserDefinition(login="ada", name="Ada"), actor="os:root").user.user_id
    store = DefinitionsStore(Database.open(tmp_path / "d.sqlite"), max_age_s=1)
    asked = [
        RevokeToken(1, "token", "jti", 4_000_000_000, "client:x", ("10.0.0.7", 1)),
        SetPassword(2, user_id, "hash", ("10.0.0.8", 2)),
        AddPasskey(3, user_id, b"credential", "key", ("fd00::9", 3)),
    ]
    authority = PlayedAuthority(asked)
    with pytest.raises(LinkClosed):
        await AuthorityDesk(store, NobodyElse(), KEY).run(authority)
    assert authority.answers[1:] == [Done(1), Done(2), Done(3)]
    await record_changes(store, journal)
    told = [(event["unmapped"]["casemate"]["kind"], event.get("src_endpoint")) for event in journal.auditor.events]
    assert told == [
        ("user_created", None),
        ("token_revoked", {"ip": "10.0.0.7", "port": 1}),
        ("user_password_changed", {"ip": "10.0.0.8", "port": 2}),
        ("user_passkey_added", {"ip": "fd00::9", "port": 3}),
    ]
    registry.close()
    store.close()


@control("AU-12")
async def test_without_an_auditor_changes_wait(tmp_path):
    """Nothing is forgotten that was not recorded."""
    registry = Registry(tmp_path / "d.sqlite")
    registry.create(ClientDefinition(name="x"), actor="t")
    store = DefinitionsStore(Database.open(tmp_path / "d.sqlite"), max_age_s=1)
    with pytest.raises(JournalUnavailable):
        await record_changes(store, Journal(timeout_s=0.1))
    assert len(registry.changes()) == 1
    registry.close()
    store.close()


async def test_quotas_are_written_anew_from_what_is_recorded(journal):
    """The day in full, the minute as far as it is not over, each subject for itself."""
    minute = NOON // 60
    journal.auditor.rows = [
        UsageRow(minute - 720, "c", "u", "t", "m", 5, 700),
        UsageRow(minute - 2, "c", "c", "t", "m", 1, 100),
        UsageRow(minute - 1, "c", "u", "t", "m", 1, 150),
    ]
    limits = Limits(tokens_per_day=1000, tokens_per_minute=200)
    book = QuotaBook(
        LimitTable((), {"client": limits}), block_tokens=10, clock_ns=lambda: 10**15, utc_s=lambda: float(NOON)
    )
    assert await charge_recorded_usage(book, journal, utc_s=lambda: float(NOON)) == 3
    left = book.allowances((("client", "c"),))
    assert (left.day_tokens.remaining, left.tokens.remaining) == (50, 50)
    ask = lambda tokens: book.reserve((("client", "c"),), 1, prompt_tokens=tokens, max_output_tokens=0)  # noqa: E731
    assert isinstance(ask(51), QuotaDenial)
    assert isinstance(ask(50), QuotaGrant)
    book.check_integrity()


def test_a_request_whose_gateway_is_gone_counts_what_the_auditor_tells():
    """For all whose limits it counts against; other messages say nothing of it."""
    rules = [LimitRule("user", "u", Limits(tokens_per_day=500)), LimitRule("tenant", "t", Limits(tokens_per_day=900))]
    book = QuotaBook(LimitTable(tuple(rules), {}), block_tokens=100, clock_ns=lambda: 10**15)
    subjects = (("client", "c"), ("user", "u"), ("tenant", "t"), ("model", "m"))
    number = book.reserve(subjects, 1, prompt_tokens=50, max_output_tokens=100).reservation
    book.release_owner(1)
    correct_lost(book, Recorded(1, 1))
    assert book.allowances(subjects).day_tokens.remaining == 350
    correct_lost(book, LostRequest(number, "c", "u", "t", "m", 60))
    assert [book.allowances((one,)).day_tokens.remaining for one in subjects[1:3]] == [440, 840]


def outcome(client="c", tokens=10):
    return {
        "actor": {"app_uid": client, "user": {"uid": client}},
        "ai_model": {"name": "m"},
        "message_context": {"total_tokens": tokens},
        "metadata": {"tenant_uid": "t"},
        "unmapped": {"casemate": {"kind": "inference_outcome"}},
    }


def test_sums_follow_who_is_active_and_not_how_much_they_ask():
    """Minutes for an hour, the rest of the day as one; an earlier day is dropped."""
    book, start = UsageBook(), NOON * 1000
    for minute in range(180):
        for _ in range(3):
            book.note(outcome(), start + minute * 60_000)
    ((rows, is_last),) = book.pages(0)
    assert is_last
    assert len(rows) == 62
    assert (sum(row.requests for row in rows), sum(row.tokens for row in rows)) == (540, 5400)
    assert rows[0].minute == NOON // 60 - 720
    book.note(outcome(), start + 86_400_000)
    ((rows, _),) = book.pages(0)
    assert [row.tokens for row in rows] == [10]


def test_sums_are_the_same_in_whatever_order_outcomes_are_read():
    """A start reads the log backwards, and keeps no outcome: what is a day old and more counts nowhere."""
    start = NOON * 1000
    times = [start + minute * 60_000 for minute in range(-2000, 90, 7)]
    forwards, backwards = UsageBook(), UsageBook()
    for time_ms in times:
        forwards.note(outcome(), time_ms)
    for time_ms in reversed(times):
        backwards.note(outcome(), time_ms)
    ((rows, _),) = backwards.pages(0)
    assert [(rows, True)] == list(forwards.pages(0))
    midnight = start - 12 * 3_600_000
    assert sum(row.tokens for row in rows) == 10 * sum(time_ms >= midnight for time_ms in times)
    assert len(rows) <= 62


def test_pages_fit_a_message_and_the_last_says_so():
    """Also when there is nothing."""
    assert list(UsageBook().pages(0)) == [([], True)]
    book = UsageBook()
    for number in range(5001):
        book.note(outcome(f"c{number}"), NOON * 1000)
    pages = list(book.pages(0))
    assert [(len(rows), is_last) for rows, is_last in pages] == [(5000, False), (1, True)]
    assert list(book.pages(NOON * 1000 + 60_000)) == [([], True)]
