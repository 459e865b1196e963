"""A console whose authority and APIs are played by the test, and a browser without a network."""

import re
from urllib.parse import parse_qs, urlsplit

import httpx
import msgspec
import pytest

from appliance.console.appliance_api import ApplianceApi
from appliance.console.application import Console
from appliance.console.pages import Pages
from appliance.console.sessions import SessionDesk
from appliance.console.tokens import AuthorityClient
from security.keys import generate_p256
from security.oauth.https_client import HttpsAnswer
from security.scopes import GRANTABLE, Role, format_scopes

ORIGIN = "https://console.example:8446"
ISSUER = "https://authority.example:8444"
NOW = 1_800_000_000.0
FORM_TOKEN = re.compile(r'name="form_token" value="([^"]+)"')


class Clock:
    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now


class PlayedListener:
    """One of the appliance's listeners: answers by path, and keeps what it was asked."""

    def __init__(self, origin, answers):
        self.origin = origin
        self.answers = answers
        self.asked = []
        self.nonce = ""

    async def ask(self, method, path, body, headers):
        self.asked.append((method, path, body, dict(headers)))
        status, document = self.answers(method, path, body, headers)
        message = httpx.Headers({"DPoP-Nonce": self.nonce} if self.nonce else {})
        data = document if isinstance(document, bytes) else msgspec.json.encode(document)
        return HttpsAnswer(status, message, data)


class House:
    """The console, and whoever signs in to it."""

    def __init__(self):
        self.clock = Clock()
        self.role = Role.ADMIN
        self.subject = "user-ada"
        self.signed_in_at = NOW
        self.refusal = None
        self.num_tokens = 0
        self.documents = {}
        self.authority = PlayedListener(ISSUER, self._answer_authority)
        self.gateway = PlayedListener("https://gateway.example:8443", self._answer)
        self.administration = PlayedListener("https://localhost:8445", self._answer)
        key = generate_p256()
        client = AuthorityClient(
            self.authority, "console-1", key, f"{ORIGIN}/callback", issuer=ISSUER, clock=self.clock
        )
        origins = {"gateway": self.gateway, "administration": self.administration}
        self.desk = SessionDesk(idle_s=900, lifetime_s=28_800, clock=self.clock)
        self.pages = Pages(idle_s=900, mode="production", banner="Authorized use <only>.")
        self.console = Console(self.desk, self.pages, client, ApplianceApi(origins, client, clock=self.clock), ORIGIN)
        self.app = self.console.build()

    def _answer_authority(self, _method, path, _body, _headers):
        if path == "/revoke":
            return 200, b""
        if path == "/introspect":
            return 200, {
                "active": True, "sub": self.subject, "username": "ada", "tenant": "default",
                "roles": [self.role.value], "auth_time": int(self.signed_in_at), "exp": 1,
            }  # fmt: skip
        if self.refusal is not None:
            return 400, {"error": self.refusal}
        self.num_tokens += 1
        return 200, {
            "access_token": f"access-{self.num_tokens}", "token_type": "DPoP", "expires_in": 600,
            "refresh_token": f"refresh-{self.num_tokens}", "scope": format_scopes(GRANTABLE[self.role]),
        }  # fmt: skip

    def _answer(self, method, path, _body, _headers):
        return self.documents.get((method, path), (200, []))

    def browser(self):
        return PlayedBrowser(self)


class PlayedBrowser:
    """Keeps cookies and the last page, and sends what a browser sends."""

    def __init__(self, house):
        self.house = house
        self.cookies = {}
        self.origin = ORIGIN
        self.last = None

    async def ask(self, method, path, fields=None, **headers):
        sent = {"host": urlsplit(ORIGIN).netloc, **headers}
        if self.cookies:
            sent["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if method == "POST":
            sent.setdefault("origin", self.origin)
        transport = httpx.ASGITransport(app=self.house.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
            self.last = await client.request(method, path, data=fields, headers=sent)
        for line in self.last.headers.get_list("set-cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            if "Max-Age=0" in line:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        return self.last

    async def get(self, path, **headers):
        return await self.ask("GET", path, **headers)

    async def post(self, path, **fields):
        """A form from the page that is there."""
        return await self.ask("POST", path, {"form_token": self.form_token, **fields})

    @property
    def form_token(self):
        found = FORM_TOKEN.search(self.last.text)
        return "" if found is None else found[1]

    async def begin(self):
        """To the authority. Returns: what it is asked."""
        answer = await self.get("/sign_in/begin")
        return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}

    async def sign_in(self):
        """There and back, and to the first page."""
        asked = await self.begin()
        await self.get(f"/callback?code=c-1&state={asked['state']}&iss={ISSUER}")
        return await self.get("/")


@pytest.fixture
def house():
    made = House()
    made.documents["GET", "/ready"] = (200, {"status": "ready"})
    made.documents["GET", "/v1/models"] = (200, {"data": [{"id": "tiny"}]})
    made.documents["GET", "/metrics"] = (200, b"")
    return made


@pytest.fixture
def browser(house):
    return house.browser()
