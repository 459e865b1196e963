"""People sign in at the company's OpenID provider, over the wire: the authority's process and a provider, each on TLS, and a
browser between them.
"""

import asyncio
import base64
import hashlib
import json
import secrets
import time
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from appliance.authority.people import BEGUN_COOKIE, COOKIE
from appliance.authority.token_check import build_token_check
from appliance.authority.upstream import MAX_QUERY_CHARS
from appliance.config.loading import parse_configuration
from appliance.gateway.identity import Presented
from security.clients import ClientDefinition
from security.users import UserDefinition
from tests.support.authority_process import request, running_authority
from tests.support.identity_provider import Key, OpenIdProvider

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
REDIRECT = "https://app.example/back"
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()


class Browser:
    """A person with a browser that knows several cookies."""

    def __init__(self, running):
        self.running = running
        self.cookies = {}
        self.origin = f"https://127.0.0.1:{running.port}"

    def go(self, method, path, fields=None):
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        body = None
        if fields is not None:
            headers |= {**FORM, "Origin": self.origin}
            body = urlencode(fields)
        status, answered, content = request(self.running, method, path, headers=headers, body=body)
        for cookie in answered.get_all("set-cookie", []):
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value.strip('"')
            if not self.cookies[name]:
                del self.cookies[name]
        return status, answered.get("location", ""), content.decode()

    def hidden(self, page):
        form = page.partition("</form>")[0]
        parts = form.split('type="hidden" name="')[1:]
        return {part.partition('"')[0]: part.partition('value="')[2].partition('"')[0] for part in parts}

    def begin(self, path="/device"):
        """From a page of ours to the provider's. Returns: where the browser is sent."""
        status, _, page = self.go("GET", path)
        assert (status, "Sign in with corp" in page) == (200, True)
        assert 'name="password"' not in page
        status, location, _ = self.go("POST", "/sign_in", {"then": self.hidden(page)["then"].replace("&amp;", "&")})
        assert status == 303
        return location


@pytest.fixture
def provider(tmp_path):
    made = OpenIdProvider(tmp_path / "provider")
    yield made
    made.close()


@pytest.fixture
async def running(tmp_path, provider):
    secret = tmp_path / "upstream.secret"
    secret.write_text(provider.SECRET + "\n")
    secret.chmod(0o600)

    def configure(config):
        ports = f"[gateway]\nport = {config.gateway.port}\n[authority]\nport = {config.authority.port}\n"
        ports += "max_failures_per_minute = 1000\n"
        engine = '[[engines]]\nmodel_path = "/nowhere"\nserved_model_name = "tiny"\n'
        text = f'state_dir = "{config.state_dir}"\n{ports}{engine}{provider.upstream_section(secret)}'
        return parse_configuration(text.encode(), tmp_path, "t")

    async with running_authority(tmp_path, configure) as made:
        yield made


def token(running, fields):
    status, _, body = request(running, "POST", "/token", headers=FORM, body=urlencode(fields))
    return status, json.loads(body)


async def principal_of(running, access_token):
    shown = Presented(scheme="bearer", token=access_token, method="GET", path="/v1/models", address="192.0.2.1")
    return await build_token_check(running.config)(shown)


def application(running):
    definition = ClientDefinition(name="app", kind="application", auth_method="none", redirect_uris=(REDIRECT,))
    return running.registry.create(definition, actor="t").client.client_id


def _code_flow(running, provider):
    client_id, browser = application(running), Browser(running)
    asked = {
        "response_type": "code", "client_id": client_id, "redirect_uri": REDIRECT, "code_challenge": CHALLENGE,
        "code_challenge_method": "S256", "scope": "inference", "state": "s",
    }  # fmt: skip
    sent = browser.begin(f"/authorize?{urlencode(asked)}")
    assert sent.startswith(provider.upstream_section("x").partition('authorization_endpoint = "')[2].partition('"')[0])
    status, location, _ = browser.go("GET", f"/callback?{provider.sign_in(sent)}")
    assert (status, location) == (303, f"/authorize?{urlencode(asked)}")
    page = browser.go("GET", location)[2]
    assert "Ada &lt;L&gt;" in page
    fields = {name: value.replace("&amp;", "&") for name, value in browser.hidden(page).items()}
    _, location, _ = browser.go("POST", "/authorize", {**fields, "decision": "approve"})
    code = parse_qs(urlsplit(location).query)["code"][0]
    exchange = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT, "code_verifier": VERIFIER}
    status, body = token(running, {**exchange, "client_id": client_id})
    assert status == 200, body
    refresh = {"grant_type": "refresh_token", "refresh_token": body["refresh_token"], "client_id": client_id}
    status, again = token(running, refresh)
    assert status == 200, again
    return again["access_token"]


async def test_a_person_of_the_providers_gets_tokens_by_the_code_flow(running, provider):
    """Named after the provider, with the role that their group has here; the session goes on without it."""
    principal = await principal_of(running, await asyncio.to_thread(_code_flow, running, provider))
    assert (principal.subject, principal.tenant, principal.role) == ("corp:f:1:ada", "acme", "user")
    assert principal.scopes == {"inference"}


def _device_flow(running, provider):
    client_id, browser = application(running), Browser(running)
    _, _, body = request(
        running, "POST", "/device_authorization", headers=FORM, body=urlencode({"client_id": client_id})
    )
    begun = json.loads(body)
    sent = browser.begin(f"/device?user_code={begun['user_code']}")
    _, location, _ = browser.go("GET", f"/callback?{provider.sign_in(sent)}")
    page = browser.go("GET", location)[2]
    assert "Done" in browser.go("POST", "/device", {**browser.hidden(page), "decision": "approve"})[2]
    grant = "urn:ietf:params:oauth:grant-type:device_code"
    status, answer = token(running, {"grant_type": grant, "device_code": begun["device_code"], "client_id": client_id})
    assert status == 200, answer
    return answer["access_token"]


async def test_and_by_the_device_flow(running, provider):
    """RFC 8628, confirmed by somebody who signed in elsewhere."""
    principal = await principal_of(running, await asyncio.to_thread(_device_flow, running, provider))
    assert principal.subject == "corp:f:1:ada"


def _local_people(running):
    new = running.registry.users.create(UserDefinition(login="bob", name="Bob"), actor="t")
    browser = Browser(running)
    fields = {"login": "bob", "password": new.password, "code": "", "then": "/device"}
    status, location, _ = browser.go("POST", "/sign_in", fields)
    assert location.startswith("https://login.corp.example/auth?")
    assert COOKIE not in browser.cookies
    grant = {"grant_type": "client_credentials", "client_id": running.issued.client.client_id}
    return status, token(running, {**grant, "client_secret": running.issued.secret})[0]


async def test_local_people_go_and_services_stay(running):
    """Whoever has a password here is sent to the provider all the same; client_credentials as before."""
    assert await asyncio.to_thread(_local_people, running) == (303, 200)


NOW = int(time.time())


BAD_ID_TOKENS = (
    {"claims": {"nonce": "another"}}, {"claims": {"nonce": ...}}, {"claims": {"aud": "another"}},
    {"claims": {"aud": ["casemate", "another"], "azp": ...}}, {"claims": {"azp": "another"}},
    {"claims": {"iss": "https://evil.example"}}, {"claims": {"exp": NOW - 60}}, {"claims": {"iat": NOW + 86_400}},
    {"claims": {"sub": ...}}, {"claims": {"sub": "x" * 201}}, {"claims": {"sub": "a\nb"}}, {"claims": {"groups": []}},
    {"claims": {"groups": ["LLM.User", "LLM.Auditor"]}}, {"claims": {"groups": ["LLM.User", 7]}},
    {"claims": {"groups": ["LLM.User", *map(str, range(512))]}},
    {"claims": {"groups": {"a": 1}}}, {"header": {"alg": "none"}}, {"header": {"alg": "HS256"}}, {"header": {"typ": "at+jwt"}},
    {"header": {"kid": "unknown"}}, {"header": {"jku": "https://evil.example"}},
)  # fmt: skip


async def test_an_id_token_that_does_not_hold_lets_nobody_in(running, provider):
    """OpenID Connect Core section 3.1.3.7, each check; nobody is told which."""

    def attempt(changes):
        browser = Browser(running)
        answer = provider.sign_in(browser.begin(), **changes)
        status, _, page = browser.go("GET", f"/callback?{answer}")
        return status, "did not succeed" in page, COOKIE in browser.cookies

    for changes in (*BAD_ID_TOKENS, {"key": Key("key-1")}):
        assert await asyncio.to_thread(attempt, changes) == (401, True, False), changes
    assert (await asyncio.to_thread(attempt, {}))[2] is True


def _mixed_up(running, provider):
    one, other = Browser(running), Browser(running)
    answer = provider.sign_in(one.begin())
    other.begin()
    results = [other.go("GET", f"/callback?{answer}")[0]]  # Somebody is made to sign in as somebody else.
    assert len(provider.codes) == 1  # The code was not even tried.
    results.append(Browser(running).go("GET", f"/callback?{answer}")[0])
    # Some take the first of two, some the last.
    for before, after in (
        ("", "&state=x"), ("", "&iss=https://evil.example"), ("", "&error=access_denied"),
        ("state=x&", ""), ("code=x&", ""), ("iss=https://evil.example&", ""), ("", "&long=" + "a" * MAX_QUERY_CHARS),
    ):  # fmt: skip
        browser = Browser(running)
        answer = provider.sign_in(browser.begin())
        results.append(browser.go("GET", f"/callback?{before}{answer}{after}")[0])
    for changed in ({"iss": "https://evil.example"}, {"state": "x"}, {"error": "access_denied"}, {"code": ""}):
        browser = Browser(running)
        fields = {name: values[0] for name, values in parse_qs(provider.sign_in(browser.begin())).items()}
        results.append(browser.go("GET", f"/callback?{urlencode(fields | changed)}")[0])
    browser = Browser(running)
    answer = provider.sign_in(browser.begin())
    begun = browser.cookies[BEGUN_COOKIE]
    assert browser.go("GET", f"/callback?{answer}")[0] == 303
    browser.cookies[BEGUN_COOKIE] = begun
    results.append(browser.go("GET", f"/callback?{answer}")[0])  # Once.
    return results


async def test_an_answer_belongs_to_the_browser_that_asked_and_is_good_once(running, provider):
    """RFC 9700 sections 2.1 and 4.7, RFC 9207: another's answer, a repeated parameter, another provider, twice."""
    assert await asyncio.to_thread(_mixed_up, running, provider) == [401] * 14


async def test_a_provider_that_is_not_well_is_no_refusal(running, provider):
    """503, and nobody is counted as guessing."""

    def attempt(outage):
        provider.outage = outage
        browser = Browser(running)
        return browser.go("GET", f"/callback?{provider.sign_in(browser.begin())}")[0]

    for outage in ((500, {}), (401, {"error": "invalid_client"}), (404, {})):
        assert await asyncio.to_thread(attempt, outage) == 503
    assert await asyncio.to_thread(attempt, (400, {"error": "invalid_grant"})) == 401
    assert await asyncio.to_thread(attempt, (200, {"access_token": "x"})) == 401
    assert await asyncio.to_thread(attempt, None) == 303


async def test_what_is_in_the_pages_addresses_is_not_guessable(running, provider):
    """state, nonce and challenge are new each time."""
    sent = [await asyncio.to_thread(lambda: Browser(running).begin()) for _ in range(3)]
    queries = [parse_qs(urlsplit(location).query) for location in sent]
    for name in ("state", "nonce", "code_challenge"):
        values = {query[name][0] for query in queries}
        assert len(values) == 3
        assert min(map(len, values)) >= 32
    assert {query["scope"][0] for query in queries} == {"openid profile"}
    assert secrets.compare_digest(queries[0]["redirect_uri"][0], f"https://127.0.0.1:{running.port}/callback")
