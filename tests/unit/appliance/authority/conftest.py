"""An authority's ASGI application with a journal whose auditor is played by the test."""

import asyncio
import itertools
import time

import httpx
import pytest

from appliance.authority.application import AuthorityApplication
from appliance.authority.bookkeeping import Bookkeeper
from appliance.authority.journal import Journal
from appliance.authority.key_rotation import KeyRotation
from appliance.authority.passkey_pages import PasskeyRoutes
from appliance.authority.people import PeopleRoutes
from appliance.authority.sign_in import SignInDesk
from appliance.errors import LinkClosed
from appliance.messages.audit import AppendRefused, Recorded
from audit.entry import parse_canonical
from audit.permissions import verify_permitted
from security.clients import ClientDefinition
from security.oauth.failure_limit import FailureLimit
from security.oauth.signing_keys import SigningKeys
from security.passkeys import PasskeyServer, find_rp_id
from security.settings import AuthoritySettings
from tests.support.authority import build_authority
from tests.support.definitions import Registry

ISSUER = "https://127.0.0.1:8444"
RESOURCE = "https://127.0.0.1:8443"


@pytest.fixture(autouse=True)
def _quick_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """A password costs a twentieth of a second by design; nothing here is about that, but one test, which says so."""
    monkeypatch.setattr("security.passwords.MEMORY_KIB", 64)


class PlayedAuditor:
    """The auditor's end of a link: checks what is appended as the real one does, and answers as it is told to."""

    def __init__(self):
        self.events = []
        self.answers = True
        self.refusal = None
        self._indices = itertools.count()
        self._messages = asyncio.Queue()

    def send(self, message):
        event = parse_canonical(message.event)
        verify_permitted("authority", "event", event)
        self.events.append(event)
        if self.refusal is not None:
            self._messages.put_nowait(AppendRefused(message.correlation, self.refusal, "for the test"))
        elif self.answers:
            self._messages.put_nowait(Recorded(message.correlation, next(self._indices)))

    async def receive(self):
        message = await self._messages.get()
        if message is None:
            raise LinkClosed("ended by the test")
        return message

    def end(self):
        self._messages.put_nowait(None)

    @property
    def kinds(self):
        return [event["unmapped"]["casemate"]["kind"] for event in self.events]


class Clock:
    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


class House:
    """Everything of one authority."""

    def __init__(self, path, issuer=ISSUER):
        self.issuer = issuer
        self.utc = Clock(time.time())
        self.registry = Registry(path / "clients.sqlite", clock=lambda: self.utc.now)
        self.issued = self.registry.create(ClientDefinition(name="demo"), actor="ada")
        self.keys = SigningKeys.load_or_create(path / "signing", clock=lambda: self.utc.now)
        self.authority, self.directory, self.refresh = build_authority(
            self.registry, self.keys, path, issuer=issuer, resource=RESOURCE, clock=lambda: self.utc.now
        )
        self.journal = Journal(timeout_s=20.0)
        self.clock = Clock(1000.0)
        self.failures = FailureLimit(5, clock=self.clock)
        self.settings = AuthoritySettings(banner="Only for those who may.")
        passkeys = None if find_rp_id(issuer) is None else PasskeyServer(issuer)
        self.desk = SignInDesk(
            self.directory,
            self.refresh,
            self.registry.key,
            self.settings,
            passkeys=passkeys,
            clock=lambda: self.utc.now,
        )
        people = PeopleRoutes(
            self.authority, self.desk, self.directory, self.journal, self.failures, self.settings.banner
        )
        self.app = AuthorityApplication(
            self.authority,
            self.journal,
            self.failures,
            (people, PasskeyRoutes(self.desk, self.directory, passkeys)),
        ).build()
        rotation = KeyRotation(self.keys, self.directory, lifetime_days=90, algorithm="ES256")
        self.books = Bookkeeper(self.journal, self.failures, self.refresh, rotation)
        self.auditor = PlayedAuditor()
        self._serving = None

    async def connect(self):
        self.auditor = PlayedAuditor()
        self._serving = asyncio.create_task(self.journal.run(self.auditor))
        await asyncio.sleep(0)

    async def disconnect(self):
        self.auditor.end()
        with pytest.raises(LinkClosed):
            await self._serving

    def client(self, address="192.0.2.1"):
        transport = httpx.ASGITransport(app=self.app, client=(address, 50_000))
        return httpx.AsyncClient(transport=transport, base_url=self.issuer)

    async def ask(self, *, address="192.0.2.1", secret=None, **form):
        async with self.client(address) as client:
            auth = (self.issued.client.client_id, self.issued.secret if secret is None else secret)
            return await client.post("/token", data={"grant_type": "client_credentials", **form}, auth=auth)


@pytest.fixture
async def house(tmp_path):
    house = House(tmp_path)
    await house.connect()
    yield house
    if house.journal.is_connected:
        await house.disconnect()
    house.refresh.close()
    house.registry.close()
