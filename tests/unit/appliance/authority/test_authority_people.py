"""People at the authority's pages: who gets in, what protects a form, and that the device and code flows end as they should."""

import asyncio
import html
import re
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import structlog

from appliance.authority import sign_in
from security.clients import ClientDefinition
from security.passwords import PASSWORD_RULES, hash_password, make_code, unseal
from security.registry.snapshot import read_definitions
from security.users import UserDefinition
from tests.support.controls import control
from tests.support.oauth_house import CHALLENGE, VERIFIER

HOST = "127.0.0.1:8444"
ORIGIN = f"https://{HOST}"
PASSWORD = "A-Very-Long-Password-1"
REDIRECT = "https://app.example/back"


class Person:
    """Somebody with a browser, who has changed the first password."""

    def __init__(self, house, client, login="ada"):
        self.house = house
        self.client = client
        self.login = login
        self.new = house.registry.users.create(UserDefinition(login=login, name="Ada <L>"), actor="t")
        self.secret = unseal(house.registry.key, self.new.user.user_id, self.new.user.totp_secret)
        self.app = house.registry.create(
            ClientDefinition(name="app", kind="application", auth_method="none", redirect_uris=(REDIRECT,)), actor="t"
        ).client

    def code(self):
        return make_code(self.secret, int(self.house.utc.now) // 30)

    async def get(self, path):
        return await self.client.get(path)

    async def post(self, path, fields, **headers):
        return await self.client.post(path, data=fields, headers={"origin": ORIGIN, **headers})

    async def sign_in(self, then="/device", **changes):
        fields = {"login": self.login, "password": PASSWORD, "code": self.code(), "then": then, **changes}
        return await self.post("/sign_in", fields)

    async def begin(self):
        """Sign in for the first time and choose a password; then the clock moves on, as a code is good once."""
        answer = await self.sign_in(password=self.new.password)
        assert "Choose a new password" in answer.text
        chosen = {"current": self.new.password, "password": PASSWORD, "again": PASSWORD}
        answer = await self.post("/password", {**self.fields_of(answer), **chosen})
        assert (answer.status_code, answer.headers["location"]) == (303, "/device")
        self.house.utc.now += 30

    def token_of(self, answer):
        """What the forms of a page have that the session gave."""
        return re.search(r'name="form_token" value="([^"]+)"', answer.text)[1]

    def fields_of(self, answer):
        """The hidden fields of the last form but that for signing out."""
        form = answer.text.partition("</form>")[0]
        pairs = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form)
        return {name: html.unescape(value) for name, value in pairs}


@pytest.fixture
async def person(house):
    async with house.client() as client:
        yield Person(house, client)


@control("3.5.9", "IA-5")
async def test_the_first_password_must_be_changed_before_anything_else(person):
    """And the new one must keep the rules."""
    answer = await person.sign_in(password=person.new.password)
    fields = {**person.fields_of(answer), "current": person.new.password}
    assert "Choose a new password" in (await person.get("/device")).text
    assert PASSWORD_RULES in html.unescape(answer.text), "told before, not one after the other by refusals"
    denied = await person.post("/device", {**fields, "user_code": "x", "decision": "approve"})
    assert denied.status_code == 403
    for password, again in (("short", "short"), (PASSWORD, "other"), (person.new.password, person.new.password)):
        answer = await person.post("/password", {**fields, "password": password, "again": again})
        assert (answer.status_code, "error" in answer.text) == (400, True)
    answer = await person.post("/password", {**fields, "password": PASSWORD, "again": PASSWORD})
    assert answer.status_code == 303
    assert person.house.registry.users.find("ada").must_change_password is False


@control("3.5.2", "3.5.11", "IA-2", "IA-6")
async def test_whatever_is_wrong_is_answered_alike_and_recorded(person):
    """Nobody learns whether the login, the password or the code was right; the log knows."""
    await person.begin()
    answers = [
        await person.sign_in(login="nobody"),
        await person.sign_in(login=person.new.user.user_id),
        await person.sign_in(password="wrong"),
        await person.sign_in(code="000000"),
        await person.sign_in(code=""),
    ]
    assert {answer.status_code for answer in answers} == {401}
    words = {re.search(r'class="error">([^<]*)', answer.text)[1] for answer in answers}
    assert len(words) == 1
    assert not any("set-cookie" in answer.headers for answer in answers)
    failed = [
        event for event in person.house.auditor.events if event["unmapped"]["casemate"]["kind"] == "user_sign_in_failed"
    ]
    assert len(failed) == 5
    assert "password is wrong" in failed[2]["status_detail"]


@control("3.5.3", "3.5.4", "IA-2(1)", "IA-2(2)", "IA-2(8)")
async def test_a_one_time_code_is_good_once(person):
    """Somebody who looked over a shoulder comes too late."""
    await person.begin()
    assert (await person.sign_in()).status_code == 303
    assert (await person.sign_in()).status_code == 401


@control("3.1.8", "AC-7")
async def test_too_many_failures_lock_the_account_for_a_while(person):
    """NIST SP 800-171 3.1.8: also for the right password; an administrator can unlock it sooner."""
    await person.begin()
    for _ in range(5):
        assert (await person.sign_in(password="wrong")).status_code == 401
        person.house.clock.now += 60
    assert (await person.sign_in()).status_code == 401
    person.house.utc.now += 901
    assert (await person.sign_in()).status_code == 303
    for _ in range(5):
        await person.sign_in(password="wrong")
        person.house.clock.now += 60
    person.house.utc.now += 31
    person.house.registry.users.enable("ada", actor="t")
    assert (await person.sign_in()).status_code == 303


@control("3.5.6", "AC-2(2)", "AC-2(3)")
async def test_idle_and_disabled_accounts_do_not_get_in(person):
    """3.5.6: ninety days; enabling one again counts as having been seen."""
    await person.begin()
    person.house.utc.now += 91 * 86_400
    assert (await person.sign_in()).status_code == 401
    person.house.registry.users.disable("ada", actor="t")
    person.house.utc.now += 31
    assert (await person.sign_in()).status_code == 401


@control("3.1.10", "3.1.11", "3.13.9", "AC-2(5)", "AC-12", "IA-11", "SC-10")
async def test_a_session_ends_when_idle_and_when_it_is_old(person):
    """3.1.10 and 3.1.11."""
    await person.begin()
    await person.sign_in()
    person.house.utc.now += 899
    assert "You are signed in as Ada &lt;L&gt;" in (await person.get("/device")).text
    person.house.utc.now += 901
    assert "Only for those who may." in (await person.get("/device")).text  # The banner, before the sign-in.
    await person.sign_in()
    for _ in range(60):
        person.house.utc.now += 800
        answer = await person.get("/device")
    assert "Sign in" in answer.text


@pytest.mark.parametrize("change", ["disable", "reset"])
@pytest.mark.parametrize("does", ["sign in", "change the password"])
async def test_a_password_that_held_when_it_was_hashed_lets_nobody_in_later(person, monkeypatch, change, does):
    """Hashing takes its time, and waits for its turn: who is reset or disabled meanwhile stays so, whoever has the password."""
    await person.begin()
    if does != "sign in":
        await person.sign_in()
        fields = person.fields_of(await person.get("/password"))
    hashed = sign_in.is_password

    def is_password(stored, presented):
        getattr(person.house.registry.users, change)("ada", actor="t")
        return hashed(stored, presented)

    monkeypatch.setattr(sign_in, "is_password", is_password)
    if does == "sign in":
        answer = await person.sign_in()
        assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)
    else:
        before = person.house.registry.users.find("ada")
        chosen = {"current": PASSWORD, "password": "Another-Long-Password-2", "again": "Another-Long-Password-2"}
        assert (await person.post("/password", {**fields, **chosen})).status_code != 303
        after = person.house.registry.users.find("ada")
        assert (after.password_hash == before.password_hash) is (change == "disable")
    reasons = [event["status_detail"] for event in person.house.auditor.events if "status_detail" in event]
    assert any(("disabled" if change == "disable" else "changed meanwhile") in reason for reason in reasons)


async def test_without_a_record_nobody_is_signed_in(person):
    """The log is away: no cookie, and the session that was made for it is not there either."""
    await person.begin()
    await person.house.disconnect()
    answer = await person.sign_in()
    assert (answer.status_code, "set-cookie" in answer.headers) == (503, False)
    wrong = await person.sign_in(password="wrong")
    assert wrong.status_code == 503
    await person.house.connect()
    person.house.utc.now += 30
    assert (await person.sign_in()).status_code == 303


async def test_signing_out_ends_the_session_and_not_the_cookie_alone(person):
    """Whoever has a copy of the cookie is out, too; and it is a record."""
    await person.begin()
    copied = (await person.sign_in()).headers["set-cookie"].partition(";")[0]
    page = await person.get("/device")
    assert "You are signed in" in page.text
    left = await person.post("/sign_out", {"form_token": person.token_of(page)})
    assert (left.status_code, "Signed out" in left.text) == (200, True)
    assert "max-age=0" in left.headers["set-cookie"].lower()
    again = await person.client.get("/device", headers={"cookie": copied})
    assert "You are signed in" not in again.text
    event = person.house.auditor.events[-1]
    assert event["unmapped"]["casemate"]["kind"] == "user_signed_out"


async def test_forms_of_other_sites_do_nothing(person):
    """By Origin, by the session's token; the cookie is for this host, for TLS, and out of scripts' reach."""
    await person.begin()
    cookie = (await person.sign_in()).headers["set-cookie"]
    assert cookie.startswith("__Host-casemate=")
    for attribute in ("Secure", "HttpOnly", "SameSite=lax", "Path=/"):
        assert attribute.lower() in cookie.lower()
    assert "domain" not in cookie.lower()
    fields = {"form_token": person.token_of(await person.get("/device"))}
    for headers in ({"origin": "https://evil.example"}, {"origin": "null"}, {"origin": f"http://{HOST}"}):
        for path in ("/device", "/authorize", "/sign_in", "/sign_out", "/password"):
            assert (await person.post(path, fields, **headers)).status_code == 403
    assert (await person.client.post("/sign_out", data=fields)).status_code == 403
    assert (await person.post("/sign_out", {**fields, "form_token": "x"})).status_code == 403
    assert (await person.post("/sign_out", {**fields, "extra": ["1", "2"]})).status_code == 400


@control("3.13.13", "SC-18")
async def test_pages_load_nothing_and_are_in_no_frame_or_cache(person):
    """Whatever the page."""
    for path in ("/device", "/authorize", "/device?user_code=x"):
        answer = await person.get(path)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["cache-control"] == "no-store"
        # `no-referrer` has browsers send `Origin: null` with our own forms, which are refused then (Fetch section 3.2).
        assert answer.headers["referrer-policy"] == "same-origin"
        assert "<script" not in answer.text


async def device_of(person, **fields):
    answer = await person.client.post("/device_authorization", data={"client_id": person.app.client_id, **fields})
    return answer.json()


async def poll(person, device):
    fields = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": device["device_code"]}
    return await person.client.post("/token", data={**fields, "client_id": person.app.client_id})


@control("3.1.9", "AC-8")
async def test_a_device_is_connected_by_the_person_whose_code_it_shows(person):
    """From the device's first request to its token; polling is neither recorded nor counted as failure."""
    await person.begin()
    device = await device_of(person, scope="inference")
    assert (await poll(person, device)).json()["error"] == "authorization_pending"
    path = device["verification_uri_complete"].removeprefix(ORIGIN)
    person.client.cookies.clear()
    assert "Sign in" in (await person.get(path)).text
    assert (await person.sign_in(then=path)).headers["location"] == path
    page = await person.get(path)
    assert device["user_code"] in page.text
    assert "ask the models" in page.text
    done = await person.post("/device", {**person.fields_of(page), "decision": "approve"})
    assert "Done" in done.text
    person.house.utc.now += 5
    token = await poll(person, device)
    assert (token.status_code, token.json()["scope"]) == (200, "inference")
    assert "token_refused" not in person.house.auditor.kinds
    issued = person.house.auditor.events[-1]
    assert issued["user"]["uid"] == person.new.user.user_id
    assert issued["unmapped"]["casemate"]["grant_type"].endswith("device_code")


async def test_a_person_can_refuse_and_guessing_codes_is_slow(person):
    """access_denied; after some wrong codes there is nothing but waiting."""
    await person.begin()
    await person.sign_in()
    device = await device_of(person)
    page = await person.get("/device?user_code=" + device["user_code"])
    await person.post("/device", {**person.fields_of(page), "decision": "deny"})
    assert (await poll(person, device)).json()["error"] == "access_denied"
    answers = [(await person.get("/device?user_code=BCDF-GHJK")).status_code for _ in range(8)]
    assert answers == [400] * 5 + [429] * 3


async def test_guessing_codes_by_the_form_that_decides_is_as_slow(person):
    """It can be sent without the page before it."""
    await person.begin()
    await person.sign_in()
    fields = {**person.fields_of(await person.get("/password")), "user_code": "BCDF-GHJK", "decision": "approve"}
    assert [(await person.post("/device", fields)).status_code for _ in range(7)] == [400] * 5 + [429] * 2
    shown = (await device_of(person))["user_code"]
    assert (await person.post("/device", {**fields, "user_code": shown})).status_code == 429


async def test_an_application_gets_a_code_and_with_it_a_token(person):
    """RFC 6749 section 4.1 with PKCE, as a browser and an application do it."""
    await person.begin()
    query = urlencode(
        {
            "response_type": "code", "client_id": person.app.client_id, "redirect_uri": REDIRECT, "state": "xyz",
            "scope": "inference", "code_challenge": CHALLENGE, "code_challenge_method": "S256",
        }
    )  # fmt: skip
    path = f"/authorize?{query}"
    person.client.cookies.clear()
    assert "Sign in" in (await person.get(path)).text
    assert (await person.sign_in(then=path)).headers["location"] == path
    page = await person.get(path)
    assert "form-action 'self' https://app.example" in page.headers["content-security-policy"]
    answer = await person.post("/authorize", {**person.fields_of(page), "decision": "approve"})
    assert answer.status_code == 303
    back = parse_qs(urlsplit(answer.headers["location"]).query)
    assert (back["state"], back["iss"]) == (["xyz"], [ORIGIN])
    fields = {
        "grant_type": "authorization_code", "code": back["code"][0], "redirect_uri": REDIRECT, "code_verifier": VERIFIER,
        "client_id": person.app.client_id,
    }  # fmt: skip
    token = await person.client.post("/token", data=fields)
    assert (token.status_code, token.json()["scope"]) == (200, "inference")
    refused = await person.post("/authorize", {**person.fields_of(page), "decision": "deny"})
    assert parse_qs(urlsplit(refused.headers["location"]).query)["error"] == ["access_denied"]
    assert (await person.get("/authorize?client_id=nobody")).status_code == 400


@control("3.5.7", "IA-5(1)")
async def test_a_person_changes_their_password(person):
    """By the current one, which counts as a sign-in when it is wrong; and for one that is no variation of it."""
    await person.begin()
    assert (await person.get("/password")).status_code == 200
    fields = person.fields_of(await person.get("/password"))

    async def change(current, password):
        answer = await person.post("/password", {**fields, "current": current, "password": password, "again": password})
        return answer.status_code, answer.text

    another = "Quite-Another-One-22"
    status, text = await change(PASSWORD, PASSWORD[:-1] + "23")
    assert (status, "6 characters" in text) == (400, True)
    assert (await change("wrong", another))[0] == 403
    assert person.house.auditor.events[-1]["status_detail"] == "the current password is wrong"
    assert (await change(PASSWORD, another))[0] == 303
    assert (await person.sign_in(password=another)).status_code == 303
    for _ in range(5):
        assert (await change("wrong", PASSWORD))[0] == 403
    assert (await change(another, "Something-Else-Again-3"))[0] == 403  # Locked.
    person.client.cookies.clear()
    assert (await person.get("/password")).status_code == 403


async def test_a_name_that_does_not_exist_costs_the_same_writes(person, monkeypatch):
    """A sync of the disk is a time that can be seen from outside: nobody's failure has one too, and a locked account's."""
    await person.begin()
    noted = []
    note = person.house.refresh.note_sign_ins
    monkeypatch.setattr(person.house.refresh, "note_sign_ins", lambda *told: (noted.append(told[0]), note(*told)))
    user_id = person.new.user.user_id
    monkeypatch.setattr(person.house.failures, "retry_after_s", lambda *_: 0)
    for login in ("nobody", *["ada"] * 6):
        await person.sign_in(login=login, password="wrong")
    assert noted == ["", *[user_id] * 5, ""]


async def test_sign_ins_in_parallel_gain_nothing(person):
    """Neither more guesses at somebody than the limit allows, nor more work than that for the server."""
    await person.begin()
    answers = await asyncio.gather(*(person.sign_in(password=f"guess-{number}") for number in range(12)))
    refused = [answer.status_code for answer in answers]
    # Two are looked at at a time, so that one more may be under way when the limit is reached.
    assert (refused.count(401) in (5, 6), refused.count(401) + refused.count(429)) == (True, 12)


async def test_wrong_current_passwords_in_parallel_count_one_by_one(person):
    """And the right one among them finds the account locked, as whoever guesses one after the other does."""
    await person.begin()
    await person.sign_in()
    fields = person.fields_of(await person.get("/password"))
    chosen = {**fields, "password": "Quite-Another-One-22", "again": "Quite-Another-One-22"}
    guesses = [f"wrong-{number}" for number in range(8)]
    answers = [person.post("/password", {**chosen, "current": guess}) for guess in (*guesses, PASSWORD)]
    assert {answer.status_code for answer in await asyncio.gather(*answers)} == {403}
    assert person.house.refresh.find_sign_ins(person.new.user.user_id).locked_until > person.house.utc.now


async def test_a_reset_is_not_undone_by_a_password_that_was_on_its_way(person, monkeypatch):
    """Whoever is shut out must not come in again by a form that they sent the moment before."""
    await person.begin()
    await person.sign_in()
    fields, another = person.fields_of(await person.get("/password")), "Quite-Another-One-22"

    def hash_slowly(password):
        person.house.registry.users.reset("ada", actor="t")
        return hash_password(password)

    monkeypatch.setattr("appliance.authority.sign_in.hash_password", hash_slowly)
    answer = await person.post("/password", {**fields, "current": PASSWORD, "password": another, "again": another})
    assert answer.status_code == 403
    assert person.house.registry.users.find("ada").must_change_password


@control("3.1.11", "AC-12", "IA-5")
async def test_another_password_ends_the_persons_other_sessions(person):
    """Whoever knew the old one is out; whoever changed it stays, and so does everybody else."""
    neighbour = Person(person.house, person.house.client(), "bob")
    await neighbour.begin()
    await person.begin()
    await person.sign_in()
    elsewhere = dict(person.client.cookies)
    person.client.cookies.clear()
    person.house.utc.now += 30
    await person.sign_in()
    fields, another = person.fields_of(await person.get("/password")), "Quite-Another-One-22"
    changed = await person.post("/password", {**fields, "current": PASSWORD, "password": another, "again": another})
    assert changed.status_code == 303
    assert "Connect a device" in (await person.get("/device")).text
    assert "Connect a device" in (await neighbour.get("/device")).text
    await neighbour.client.aclose()
    person.client.cookies.clear()
    person.client.cookies.update(elsewhere)
    assert "Sign in" in (await person.get("/device")).text


@control("3.1.11", "3.9.2", "AC-12")
async def test_a_reset_ends_sessions_of_the_pages(person):
    """Until the person signs in with what they were given, nobody sits in the account."""
    await person.begin()
    await person.sign_in()
    assert "Connect a device" in (await person.get("/device")).text
    person.house.registry.users.reset("ada", actor="t")
    person.house.directory.revocations.replace(read_definitions(person.house.registry.database).revocations)
    assert "Sign in" in (await person.get("/device")).text


async def test_an_application_can_ask_for_a_fresh_sign_in(person):
    """RFC 9470 section 5: with `max_age` a sign-in of longer ago does not count, one just made does, however slow its way."""
    await person.begin()
    asked = {
        "response_type": "code", "client_id": person.app.client_id, "redirect_uri": REDIRECT, "state": "xyz",
        "scope": "inference", "code_challenge": CHALLENGE, "code_challenge_method": "S256",
    }  # fmt: skip
    await person.sign_in()
    path = f"/authorize?{urlencode(asked)}"
    for name in ("max_age", "max%5Fage"):  # Left out of where to go on, or nobody would ever get there.
        asked = await person.get(f"{path}&{name}=0")
        assert ("<h1>Sign in</h1>" in asked.text, "=0" in person.fields_of(asked)["then"]) == (True, False)
    assert "<h1>Allow an application</h1>" in (await person.get(f"{path}&max_age=1")).text
    person.house.utc.now += 60
    for age, words in (("59", "Sign in"), ("0", "Sign in"), ("60", "Allow an application")):
        assert f"<h1>{words}</h1>" in (await person.get(f"{path}&max_age={age}")).text
    shown = person.fields_of(await person.get(f"{path}&max_age=1"))
    again = await person.sign_in(then=shown["then"])
    person.house.utc.now += 20
    page = await person.get(again.headers["location"])
    assert "<h1>Allow an application</h1>" in page.text
    for wrong in ("-1", "1.5", "x", "1" * 10):
        refused = await person.get(f"{path}&max_age={wrong}")
        assert parse_qs(urlsplit(refused.headers["location"]).query)["error"] == ["invalid_request"]


async def test_where_to_go_on_is_a_page_of_ours(person):
    """No open redirector."""
    await person.begin()
    for then in ("https://evil.example", "//evil.example", "/\\evil", "/token", "", "/device\r\nX: y"):
        person.house.utc.now += 30
        assert (await person.sign_in(then=then)).headers["location"] == "/device"


@control("3.5.10", "IA-5(6)")
async def test_no_password_code_or_cookie_is_logged(person):
    """Canaries in every field."""
    with structlog.testing.capture_logs() as logs:
        await person.sign_in(password="canary-password", code="canary")
        await person.begin()
        await person.sign_in()
    assert "canary" not in repr(logs) + repr(person.house.auditor.events)
    assert PASSWORD not in repr(logs) + repr(person.house.auditor.events)
