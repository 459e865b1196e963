"""Passkeys as a second factor: registered by whoever is signed in, asked for after the password, and nothing opens instead of
them.
"""

import base64
import hashlib
import html
import json
import re

import pytest

from appliance.authority import pages
from security.passwords import hash_password
from security.users import UserDefinition
from tests.support.controls import control
from tests.support.soft_authenticator import SoftAuthenticator, b64
from tests.unit.appliance.authority.conftest import House
from tests.unit.appliance.authority.test_authority_people import PASSWORD, Person

ISSUER = "https://localhost:8444"


class KeyHolder(Person):
    """A person with a browser and a security key."""

    async def post(self, path, fields, **headers):
        return await self.client.post(path, data=fields, headers={"origin": ISSUER, **headers})

    def options_of(self, answer):
        return json.loads(html.unescape(re.search(r'data-options="([^"]*)"', answer.text)[1]))

    async def register(self, key=None, **changes):
        page = await self.get("/keys")
        response = (key or self.key).create(self.options_of(page), **changes)
        return await self.post("/keys", {**self.fields_of(page), "name": "blue one", "response": response})

    async def use(self, answer, key=None, **changes):
        """The second step, from the page that asks for the key."""
        response = (key or self.key).get(self.options_of(answer), **changes)
        return await self.post("/sign_in/key", {**self.fields_of(answer), "response": response})

    @property
    def failures(self):
        events = (
            event for event in self.house.auditor.events if event["unmapped"]["casemate"]["kind"].endswith("failed")
        )
        return [event["status_detail"] for event in events]


@pytest.fixture
async def house(tmp_path):
    house = House(tmp_path, ISSUER)
    await house.connect()
    yield house
    if house.journal.is_connected:
        await house.disconnect()
    house.refresh.close()
    house.registry.close()


@pytest.fixture
async def person(house):
    async with house.client() as client:
        made = KeyHolder(house, client)
        made.key = SoftAuthenticator(ISSUER)
        await made.begin()
        yield made


async def test_a_key_is_registered_and_then_asked_for(person):
    """Instead of the one-time code; the sign-in says by what."""
    assert "Registered" in (await person.register()).text
    assert [one.name for one in person.house.registry.users.find("ada").passkeys] == ["blue one"]
    asked = await person.sign_in(code="")
    assert (asked.status_code, "Use your passkey" in asked.text) == (200, True)
    assert "set-cookie" not in asked.headers
    entered = await person.use(asked)
    assert (entered.status_code, entered.headers["location"]) == (303, "/device")
    assert "__Host-casemate=" in entered.headers["set-cookie"]
    assert person.house.auditor.events[-1]["status_detail"] == "by password and passkey"
    person.house.utc.now += 30
    assert (await person.sign_in()).status_code == 303  # The code still works, for who has both.


async def test_without_the_password_nobody_is_asked_for_a_key(person):
    """A wrong one is answered as ever, so that names with keys cannot be found by trying."""
    await person.register()
    for changes in ({"password": "wrong"}, {"login": "nobody"}):
        answer = await person.sign_in(code="", **changes)
        assert (answer.status_code, "passkey" in answer.text) == (401, False)


@pytest.mark.parametrize(
    "changes",
    [
        {"client": {"type": "webauthn.create"}}, {"client": {"challenge": b64(bytes(32))}},
        {"client": {"origin": "https://evil.localhost:8444"}}, {"client": {"origin": "https://localhost:8445"}},
        {"client": {"origin": "http://localhost:8444"}}, {"client": {"crossOrigin": True}}, {"rp_id": "evil.example"},
        {"flags": 0}, {"counter": 0}, {"counter": 1},
    ],
    ids=str,
)  # fmt: skip
async def test_an_answer_that_does_not_hold_lets_nobody_in(person, changes):
    """WebAuthn section 7.2, each check that is ours to make; all count as failures, and none can be tried twice."""
    await person.register()
    assert (await person.use(await person.sign_in(code=""))).status_code == 303
    asked = await person.sign_in(code="")
    refused = await person.use(asked, **changes)
    assert (refused.status_code, "set-cookie" in refused.headers) == (401, False)
    assert "passkey" in person.failures[-1]
    again = await person.use(asked)
    assert again.status_code == 401
    assert (await person.use(await person.sign_in(code=""))).status_code == 303


async def test_another_key_and_another_persons_answer_are_refused(person):
    """Even if it is registered for somebody else."""
    await person.register()
    stranger = SoftAuthenticator(ISSUER)
    assert (await person.use(await person.sign_in(code=""), stranger)).status_code == 401
    stranger.credential_id = person.key.credential_id
    assert (await person.use(await person.sign_in(code=""), stranger)).status_code == 401


@pytest.mark.parametrize(
    "response", ["", "{", "[]", "{}", '{"id":1}', '{"rawId":"x","response":{}}', "x" * 13_000, '"a"']
)
async def test_what_is_no_answer_is_a_refusal_not_a_crash(person, response):
    """Whatever a script sends in place of a browser's JSON."""
    page = await person.get("/keys")
    answer = await person.post("/keys", {**person.fields_of(page), "name": "n", "response": response})
    assert answer.status_code == 400
    await person.register()
    asked = await person.sign_in(code="")
    answer = await person.post("/sign_in/key", {**person.fields_of(asked), "response": response})
    assert answer.status_code == 401


async def test_a_copy_that_was_made_before_the_first_sign_in_is_noticed(person):
    """WebAuthn section 7.1, step 23: the counter of the registration counts."""
    person.key.counter = 7
    await person.register()
    person.key.counter = 5  # A copy from before, at its next use.
    assert (await person.use(await person.sign_in(code=""))).status_code == 401
    assert "there is a copy" in person.failures[-1]


async def test_a_key_without_a_counter_is_taken_again_and_again(house):
    """Passkeys that are kept in several places count nothing (section 7.2 step 22)."""
    async with house.client() as client:
        person = KeyHolder(house, client)
        person.key = SoftAuthenticator(ISSUER, counts=False)
        await person.begin()
        await person.register()
        for _ in range(3):
            assert (await person.use(await person.sign_in(code=""))).status_code == 303


async def test_a_person_with_nothing_but_a_passkey_cannot_get_around_it(house):
    """A code that is typed in does not make the password enough."""
    async with house.client() as client:
        person = KeyHolder(house, client)
        person.key = SoftAuthenticator(ISSUER)
        person.new = house.registry.users.create(UserDefinition(login="bob", name="B"), actor="t", totp=False)
        first = await person.sign_in(login="bob", password=person.new.password, code="")
        chosen = {"current": person.new.password, "password": PASSWORD, "again": PASSWORD}
        await person.post("/password", {**person.fields_of(first), **chosen})
        await person.register()
        for code in ("", "123456"):
            answer = await person.sign_in(login="bob", code=code)
            assert "Use your passkey" in answer.text
            assert "set-cookie" not in answer.headers
        assert (await person.use(answer)).status_code == 303


async def test_lockout_waiting_and_changes_meanwhile(person):
    """Failures by key lock as others do; the second step ends in time, and with a change of the account."""
    await person.register()
    late = await person.sign_in(code="")
    person.house.utc.now += 301
    assert (await person.use(late)).status_code == 401
    changed = await person.sign_in(code="")
    person.house.registry.users.disable("ada", actor="t")
    assert (await person.use(changed)).status_code == 401
    person.house.registry.users.enable("ada", actor="t")
    person.house.utc.now += 30
    for _ in range(5):
        await person.use(await person.sign_in(code=""), flags=0)
        person.house.clock.now += 60
    assert "locked" in (await person.sign_in(code="")).text
    assert person.failures[-1] == "the account is locked after failures"


async def test_a_reset_forgets_the_keys(person):
    """Whoever lost theirs, or had one registered by somebody else."""
    await person.register()
    person.house.registry.users.reset("ada", actor="t")
    assert person.house.registry.users.find("ada").passkeys == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"client": {"type": "webauthn.get"}}, {"client": {"challenge": b64(bytes(32))}}, {"client": {"crossOrigin": True}},
        {"client": {"origin": "https://evil.example"}}, {"rp_id": "evil.example"}, {"flags": 0x40}, {"flags": 0x01},
        {"alg": -47}, {"alg": -65535},
    ],
    ids=str,
)  # fmt: skip
async def test_a_registration_that_does_not_hold_is_refused(person, changes):
    """WebAuthn section 7.1, an algorithm that was not offered included; a challenge is good once."""
    assert (await person.register(**changes)).status_code == 400
    page = await person.get("/keys")
    response = person.key.create(person.options_of(page))
    fields = {**person.fields_of(page), "name": "n", "response": response}
    assert (await person.post("/keys", {**fields, "form_token": "x"})).status_code == 403
    assert (await person.post("/keys", fields)).status_code == 200
    assert (await person.post("/keys", fields)).status_code == 400


async def test_only_who_is_signed_in_may_register(house, person):
    """And nobody more than eight."""
    async with house.client() as stranger:
        assert (await stranger.get("/keys")).status_code == 403
        assert (await stranger.post("/keys", data={}, headers={"origin": ISSUER})).status_code == 403
    for _ in range(8):
        assert (await person.register(SoftAuthenticator(ISSUER))).status_code == 200
    assert (await person.register(SoftAuthenticator(ISSUER))).status_code == 503


@control("3.13.13", "SC-18")
async def test_the_page_runs_our_script_and_no_other(person):
    """By its digest; nothing of a person's is in it."""
    page = await person.get("/keys")
    digest = base64.b64encode(hashlib.sha256(pages.SCRIPT.encode()).digest()).decode()
    policy = page.headers["content-security-policy"]
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    scripts = re.findall(r"<script>(.*?)</script>", page.text, re.S)
    assert scripts == [pages.SCRIPT]
    assert "script-src" not in (await person.get("/device")).headers["content-security-policy"]


async def test_an_authority_known_by_its_number_has_none(tmp_path):
    """Browsers take no addresses as RP ids."""
    house = House(tmp_path)
    async with house.client() as client:
        assert (await client.get("/keys")).status_code == 404
    house.refresh.close()
    house.registry.close()


async def test_a_sign_in_that_waits_for_a_key_ends_with_the_password_that_began_it(person):
    """Whoever had the old password, and the key, is not let in after the change."""
    await person.register()
    asked = await person.sign_in(code="")
    users = person.house.registry.users
    users.set_password(users.find("ada").user_id, hash_password("Another-Long-Password-2"), actor="t")
    refused = await person.use(asked)
    assert (refused.status_code, "set-cookie" in refused.headers) == (401, False)
    assert "changed meanwhile" in person.failures[-1]
