"""Every route of the console: without a session there is nothing but the pinned public list, and each scope opens its own."""

import re
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest

from appliance.console.definitions import QUESTIONS
from appliance.console.routes import PUBLIC_ROUTES
from security.scopes import GRANTABLE, Role, Scope
from tests.support.controls import control

METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS")
UNKNOWN = ("/admin", "/static/x", "/clients/", "//clients", "/clients/disable", "/records/1/2", "/favicon.ico")


def example_of(path):
    return path.replace("{id}", "7")


@control("3.1.1", "3.1.2", "AC-3", "AC-14")
async def test_a_stranger_learns_nothing(house, browser):
    """By every method every path, known or not, leads to the sign-in; the APIs are not asked."""
    paths = {example_of(route.path) for route in house.console.routes} | set(UNKNOWN)
    for path in sorted(paths):
        for method in METHODS:
            if (method, path) in PUBLIC_ROUTES or (method == "HEAD" and ("GET", path) in PUBLIC_ROUTES):
                continue
            answer = await browser.ask(method, path)
            assert (answer.status_code, answer.headers.get("location")) == (303, "/sign_in"), (method, path)
    assert not house.gateway.asked
    assert not house.administration.asked


def test_the_public_routes_are_these(house):
    """And every other route names a scope, or is for whoever is signed in."""
    public = [(route.method, route.path) for route in house.console.routes if route.scope is Scope.PUBLIC]
    assert sorted(public) == sorted(PUBLIC_ROUTES)
    assert {(route.method, route.path) for route in house.console.routes if route.scope is None} == {
        ("GET", "/"), ("POST", "/lock"), ("POST", "/sign_out"),
    }  # fmt: skip


def test_every_route_is_documented(house):
    """With its scope, in `docs/identity.md`."""
    documented = {}
    for line in (
        (Path(__file__).parents[4] / "docs" / "identity.md").read_text().partition("## The console")[2].splitlines()
    ):
        if line.startswith("| `/"):
            _, paths, scope, *_ = line.split("|")
            documented |= dict.fromkeys(re.findall("`([^`]+)`", paths), scope.strip())
    words = {None: "whoever is signed in", Scope.PUBLIC: "public"}
    for route in house.console.routes:
        is_form_of_list = route.method == "POST" and route.path.count("/") == 1 and route.scope is Scope.IDENTITY_MANAGE
        expected = "identity.read" if is_form_of_list else words.get(route.scope) or route.scope.value
        assert documented.get(route.path) == expected, route.path
    assert documented.keys() == {route.path for route in house.console.routes}


@control("3.1.5", "3.1.7", "AC-6", "AC-6(1)", "AC-6(10)")
@pytest.mark.parametrize("role", list(Role))
async def test_each_role_gets_its_own_pages(house, browser, role):
    """What the scope does not open is 403 and asks no API; what it opens stands in the navigation."""
    house.role = role
    first = await browser.sign_in()
    token = browser.form_token
    asked_before = len(house.gateway.asked), len(house.administration.asked)
    for route in house.console.routes:
        if route.scope in (None, Scope.PUBLIC):
            continue
        if route.scope in GRANTABLE[role]:
            assert route.method == "POST" or route.path.count("/") > 1 or f'href="{route.path}"' in first.text
            continue
        fields = {"form_token": token} if route.method == "POST" else None
        assert (await browser.ask(route.method, example_of(route.path), fields)).status_code == 403, route.path
    assert (len(house.gateway.asked), len(house.administration.asked)) == asked_before


@control("3.13.15", "SC-23")
async def test_a_form_must_come_from_a_page_of_ours(house, browser):
    """Another origin, none, another session's token, a field twice, a body that is no form: nothing is asked."""
    house.documents["GET", "/admin/keys"] = (200, [])
    await browser.sign_in()
    await browser.get("/keys")
    token = browser.form_token
    house.administration.asked.clear()
    good = {"form_token": token, "key_id": "key-1", "sure": "yes"}
    for origin in ("https://evil.example", "null", "http://console.example:8446", ""):
        assert (await browser.ask("POST", "/keys/revoke", good, origin=origin)).status_code == 403
    for wrong in ("", "x" * 32):
        assert (await browser.ask("POST", "/keys/revoke", {**good, "form_token": wrong})).status_code == 403
    twice = {**good, "key_id": ["key-1", "key-2"]}
    assert (await browser.ask("POST", "/keys/revoke", twice)).status_code == 400
    assert (await browser.ask("POST", "/keys/revoke", {**good, "x": "y" * 20_000})).status_code == 400
    assert not house.administration.asked
    assert (await browser.ask("POST", "/keys/revoke", good)).status_code == 303


@control("3.13.13", "SC-18")
async def test_every_page_loads_nothing_and_is_in_no_frame_or_cache(house, browser):
    """No script at all; the style by its digest."""
    for path in ("/sign_in", "/locked"):
        await browser.get(path)
    pages = [await browser.get("/sign_in"), await browser.sign_in()]
    for path in ("/clients", "/people", "/keys", "/limits", "/nothing"):
        pages.append(await browser.get(path))
    for page in pages:
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "script" not in policy
        assert "frame-ancestors 'none'" in policy
        assert page.headers["cache-control"] == "no-store"
        # `no-referrer` would have browsers send `Origin: null` with our own forms.
        assert page.headers["referrer-policy"] == "same-origin"
        assert "<script" not in page.text
        assert "src=" not in page.text


async def test_what_comes_from_the_api_is_escaped(house, browser):
    """A client's name is somebody else's words."""
    row = {
        "client_id": "c-1", "name": "<b>x", "tenant": "default", "kind": "service", "role": "user", "scopes": "inference",
        "auth_method": "none", "models": None, "disabled_at": None, "is_pending": False,
    }  # fmt: skip
    house.documents["GET", "/admin/clients"] = (200, [row])
    await browser.sign_in()
    page = (await browser.get("/clients")).text
    assert "&lt;b&gt;x" in page
    assert "<b>x" not in page


async def test_an_api_that_is_away_is_said_so(house, browser):
    """503, and the session stays."""
    await browser.sign_in()
    house.documents["GET", "/admin/clients"] = (503, {"error": {"code": "definitions_unavailable", "message": "away"}})
    assert (await browser.get("/clients")).status_code == 503
    house.documents["GET", "/admin/clients"] = (200, [])
    assert (await browser.get("/clients")).status_code == 200


async def test_a_bug_of_ours_tells_nothing(house, browser):
    """500 without the words of the error."""
    await browser.sign_in()
    house.documents["GET", "/admin/clients"] = (200, {"not": "a list of rows"})
    answer = await browser.get("/clients")
    assert answer.status_code == 500
    assert "Undefined" not in answer.text


@control("3.1.7", "AC-6(9)")
@pytest.mark.parametrize("question", QUESTIONS, ids=lambda one: one.path)
async def test_a_change_is_asked_once_more_and_then_done_by_the_admin_api(house, browser, question):
    """The page asks and changes nothing; the form is one request with the person's own bound token."""
    await browser.sign_in()
    path = question.path.replace("{id}", "a%3Ab")
    asking = await browser.get(path)
    assert question.consequence in asking.text
    assert not house.administration.asked
    house.documents["POST", f"{question.asked_of}/a%3Ab"] = (200, {"client_id": "a:b"})
    assert (await browser.post(path, sure="yes")).status_code == 303
    ((method, asked, body, headers),) = house.administration.asked
    assert (method, asked, msgspec.json.decode(body)) == ("POST", f"{question.asked_of}/a%3Ab", {})
    assert headers["Authorization"] == "DPoP access-1"


async def test_the_second_person_agrees_to_the_role_that_was_shown(house, browser):
    """The admin API is told which, so that another one that waits meanwhile is refused; unseen nobody agrees."""
    await browser.sign_in()
    assert (await browser.get("/roles/approve/user-1")).headers["location"] == "/people"
    asking = await browser.get("/roles/approve/user-1?role=auditor")
    assert "Agree to the role auditor" in asking.text
    assert not house.administration.asked
    house.documents["POST", "/admin/roles/approve/user-1"] = (200, {"user_id": "user-1"})
    assert (await browser.post("/roles/approve/user-1", role="auditor", sure="yes")).status_code == 303
    ((method, asked, body, _),) = house.administration.asked
    assert (method, asked, msgspec.json.decode(body)) == ("POST", "/admin/roles/approve/user-1", {"role": "auditor"})


async def test_forms_become_what_the_admin_api_takes(house, browser):
    """What was left empty is left out; lists are split; numbers are numbers."""
    await browser.sign_in()
    house.documents["POST", "/admin/clients"] = (200, {"client_id": "c-1", "name": "app", "client_secret": "cms-x<y"})
    made = await browser.post("/clients", name="app", tenant="acme", models="a, b", scope="", redirect_uris="")
    assert "cms-x&lt;y" in made.text
    house.documents["POST", "/admin/keys"] = (200, {"key_id": "key-1", "key": "cm-1"})
    await browser.post("/keys", client_id="c-1", networks="10.0.0.0/8\n::1", days="30")
    await browser.get("/limits")
    await browser.post("/limits", subject="tenant", name="*", tokens_per_day="5000")
    assert (await browser.get("/limits")).status_code == 200
    assert (await browser.post("/limits", subject="tenant", name="*", tokens_per_day="many")).status_code == 400
    await browser.get("/limits")
    await browser.post("/limits/remove", subject="tenant", name="*")
    await browser.post("/limits/remove", subject="tenant", name="*", sure="yes")
    await browser.get("/people")
    await browser.post("/roles/grant", target="user-1", role="auditor")
    await browser.post("/roles/grant", target="user-1", role="auditor", sure="yes")
    sent = [
        (method, path, msgspec.json.decode(body))
        for method, path, body, _ in house.administration.asked
        if method != "GET"
    ]
    none = dict.fromkeys(("requests_per_minute", "tokens_per_minute", "tokens_in_flight", "concurrent_requests"), 0)
    assert sent == [
        ("POST", "/admin/clients", {"name": "app", "tenant": "acme", "models": ["a", "b"]}),
        ("POST", "/admin/keys", {"client_id": "c-1", "networks": ["10.0.0.0/8", "::1"], "days": 30}),
        ("PUT", "/admin/limits", {"subject": "tenant", "name": "*", "limits": {**none, "tokens_per_day": 5000}}),
        ("PUT", "/admin/limits", {"subject": "tenant", "name": "*"}),
        ("POST", "/admin/roles/grant/user-1", {"role": "auditor"}),
    ]  # fmt: skip


async def test_keys_that_would_end_are_shown_first(house, browser):
    """By the admin API's own dry run; then they end."""
    await browser.sign_in()
    await browser.get("/keys")
    key = {"key_id": "key-1", "client_id": "c-1", "name": "ci", "expires_at": 1_800_000_000}
    house.documents["POST", "/admin/keys/revoke"] = (200, [key])
    shown = await browser.post("/keys/revoke", tenant="acme")
    assert "1 key would end now" in shown.text
    assert (await browser.post("/keys/revoke", tenant="acme", sure="yes")).status_code == 303
    bodies = [msgspec.json.decode(body) for method, _, body, _ in house.administration.asked if method == "POST"]
    assert bodies == [{"selection": {"tenant": "acme"}, "dry_run": flag} for flag in (True, False)]


async def test_records_are_searched_by_what_was_filled_in(house, browser):
    """And shown in a line each; one that does not exist is the API's refusal."""
    house.role = Role.AUDITOR
    record = {"time": 1_800_000_000_000, "unmapped": {"casemate": {"kind": "intent"}}, "user": {"uid": "user-1"}}
    odd = {"time": "x", "status_id": {}, "status_code": [], "unmapped": 5, "user": [], "actor": {"user": 7}}
    records = [{"index": 41, "record": record}, {"index": 40, "record": odd}]
    found = {"records": records, "next": 41, "indexed": 42, "log_size": 42}
    house.documents["POST", "/audit/search"] = (200, found)
    house.documents["GET", "/audit/record/41"] = (200, record)
    house.documents["GET", "/audit/record/99"] = (404, {"error": {"code": "record_not_found", "message": "no such"}})
    await browser.sign_in()
    page = await browser.get("/records?actor=user-1&kind=&before=50&limit=9999")
    assert '<a href="/records/41">41</a>' in page.text
    assert '<a href="/records/40">40</a>' in page.text, "whatever stands in its members"
    asked = next(msgspec.json.decode(body) for _, path, body, _ in house.gateway.asked if path == "/audit/search")
    assert asked == {"actor": "user-1", "before": 50, "limit": 50}
    assert "&#34;kind&#34;: &#34;intent&#34;" in (await browser.get("/records/41")).text
    assert (await browser.get("/records/99")).status_code == 404
    assert (await browser.get("/records/x")).status_code == 404


async def test_who_acted_is_shown_as_a_search_for_the_actor_finds_it(house, browser):
    """The id, which leads to that search, with the login beside it: whoever copies what stands under Who finds the records."""
    house.role = Role.AUDITOR
    signed_in = {
        "time": 1,
        "unmapped": {"casemate": {"kind": "user_signed_in"}},
        "user": {"name": "ada", "uid": "user-1"},
    }
    by_command = {"time": 1, "actor": {"user": {"name": "os:a&b"}}, "user": {"uid": "client-1"}}
    loaded = {"app": {"name": "large", "uid": "0.1.0+96b8"}, "unmapped": {"casemate": {"kind": "model_loaded"}}}
    records = [{"index": 2, "record": signed_in}, {"index": 1, "record": by_command}, {"index": 0, "record": loaded}]
    house.documents["POST", "/audit/search"] = (200, {"records": records, "next": None, "indexed": 3, "log_size": 3})
    await browser.sign_in()
    page = (await browser.get("/records")).text
    assert '<a href="/records?actor=user-1">user-1</a><br><span class="soft">ada</span>' in page
    assert '<a href="/records?actor=os%3Aa%26b">os:a&amp;b</a></td>' in page
    assert re.search(r">model_loaded<.*?>large<", page, re.DOTALL), "a model by its name, not by its digest"
    assert "0.1.0+96b8" not in page


@pytest.mark.parametrize(
    ("text", "time_ms"),
    [
        ("2026-11-25T14:30", 1795617000000),
        ("2026-11-25", 1795564800000),
        ("2026-11-25T15:30+01:00", 1795617000000),
        ("1500-01-01", 0),
    ],
)
async def test_records_of_a_time_are_asked_for(house, browser, text, time_ms):
    """In UTC, from the first time on and before the second; older ones of the same search are in it, too."""
    house.role = Role.AUDITOR
    house.documents["POST", "/audit/search"] = (200, {"records": [], "next": 7, "indexed": 9, "log_size": 9})
    await browser.sign_in()
    page = await browser.get(f"/records?since={quote(text)}&until=2026-11-26T00:00&before=8")
    asked = next(msgspec.json.decode(body) for _, path, body, _ in house.gateway.asked if path == "/audit/search")
    assert asked == {"since_ms": time_ms, "until_ms": 1795651200000, "before": 8, "limit": 50}
    assert page.text.count(f'name="since" value="{text}"') == 2


async def test_a_time_that_is_none_is_refused(house, browser):
    """Left out, it would find what was not asked for."""
    house.role = Role.AUDITOR
    await browser.sign_in()
    for text in ("yesterday", "2026-13-01", "9" * 40, "2026-11-25T14:30+99:00"):
        page = await browser.get(f"/records?until={quote(text)}")
        assert page.status_code == 400
        assert "expected a time such as 2026-11-25T14:30" in page.text
    assert not [path for _, path, _, _ in house.gateway.asked if path == "/audit/search"]
