"""Signing in to the console: the code flow's every check, what a session is worth, and when it is locked or over."""

import base64
import hashlib
import re
from urllib.parse import parse_qs

import pytest

from appliance.console.pages import COOKIE
from appliance.console.sign_in import BEGUN_COOKIE
from security.oauth.dpop import verify_proof
from security.oauth.jws import parse_jws
from security.scopes import Role
from tests.support.controls import control
from tests.unit.appliance.console.conftest import ISSUER, NOW, ORIGIN


def fields_of(asked):
    return {name: values[0] for name, values in parse_qs(asked[2].decode()).items()}


async def test_the_request_is_a_code_with_pkce_bound_to_the_sessions_key(house, browser):
    """RFC 6749 section 4.1.1, RFC 7636 section 4.3, RFC 9449 section 10; a fresh sign-in, and no scope that is not used."""
    asked = await browser.begin()
    assert browser.last.status_code == 303
    assert browser.last.headers["location"].startswith(f"{ISSUER}/authorize?")
    assert asked["response_type"] == "code"
    assert asked["redirect_uri"] == f"{ORIGIN}/callback"
    assert asked["code_challenge_method"] == "S256"
    assert asked["max_age"] == "0"
    assert asked["scope"] == "models.read audit.log metrics.read identity.read identity.manage"
    await browser.get(f"/callback?code=c-1&state={asked['state']}&iss={ISSUER}")
    token, described = house.authority.asked
    fields = fields_of(token)
    challenge = (
        base64.urlsafe_b64encode(hashlib.sha256(fields["code_verifier"].encode()).digest()).rstrip(b"=").decode()
    )
    assert challenge == asked["code_challenge"]
    assert (fields["code"], fields["redirect_uri"]) == ("c-1", f"{ORIGIN}/callback")
    proof = verify_proof((token[3]["DPoP"],), method="POST", urls=frozenset({f"{ISSUER}/token"}), now=NOW)
    assert proof.thumbprint == asked["dpop_jkt"]
    claims = parse_jws(fields["client_assertion"]).payload()
    assert (claims["iss"], claims["sub"], claims["aud"]) == ("console-1", "console-1", ISSUER)
    assert described[1] == "/introspect"


@control("3.13.15", "SC-23")
async def test_cookies_are_of_this_host_alone_and_tokens_never_leave(house, browser):
    """`__Host-`, HttpOnly, Secure, SameSite; no token in any answer."""
    await browser.begin()
    (begun,) = browser.last.headers.get_list("set-cookie")
    assert begun.startswith(f"{BEGUN_COOKIE}=")
    for word in ("HttpOnly", "Secure", "SameSite=lax", "Path=/"):
        assert word in begun
    await browser.sign_in()
    house.documents["GET", "/admin/clients"] = (200, [])
    answers = [await browser.get(path) for path in ("/", "/clients", "/locked")]
    asked = await browser.begin()
    done = await browser.get(f"/callback?code=c&state={asked['state']}&iss={ISSUER}")
    session = next(line for line in done.headers.get_list("set-cookie") if line.startswith(f"{COOKIE}="))
    for word in ("HttpOnly", "Secure", "SameSite=strict", "Path=/"):
        assert word in session
    assert "Domain" not in session
    for answer in (*answers, done):
        assert "access-" not in answer.text + str(answer.headers)
        assert "refresh-" not in answer.text + str(answer.headers)


@pytest.mark.parametrize(
    "change",
    [
        {"state": "another"}, {"state": None}, {"iss": "https://evil.example"}, {"iss": None}, {"code": None},
        {"error": "access_denied", "code": None}, {"code": "a&code=b"},
    ],
)  # fmt: skip
async def test_an_answer_that_is_not_to_this_sign_in_is_refused(browser, change):
    """RFC 6749 section 10.12, RFC 9207 section 2.4; and it is good once."""
    asked = await browser.begin()
    query = {"code": "c-1", "state": asked["state"], "iss": ISSUER, **change}
    text = "&".join(f"{name}={value}" for name, value in query.items() if value is not None)
    assert (await browser.get(f"/callback?{text}")).status_code == 403
    assert COOKIE not in browser.cookies
    assert (await browser.get(f"/callback?code=c-1&state={asked['state']}&iss={ISSUER}")).status_code == 403


async def test_an_answer_belongs_to_the_browser_that_asked(house, browser):
    """Somebody else's code does not sign a victim in."""
    asked = await browser.begin()
    victim = house.browser()
    assert (await victim.get(f"/callback?code=c-1&state={asked['state']}&iss={ISSUER}")).status_code == 403
    assert COOKIE not in victim.cookies


async def test_a_sign_in_of_before_does_not_count(house, browser):
    """The authority's cookie of somebody who left opens nothing, and the tokens are void at once."""
    house.signed_in_at = NOW - 60
    asked = await browser.begin()
    assert (await browser.get(f"/callback?code=c-1&state={asked['state']}&iss={ISSUER}")).status_code == 403
    assert [asked[1] for asked in house.authority.asked] == ["/token", "/introspect", "/revoke"]


async def test_under_another_name_the_browser_is_sent_to_the_right_one(browser):
    """The cookie must be there when the authority sends it back."""
    answer = await browser.get("/sign_in/begin", host="127.0.0.1:8446")
    assert answer.headers["location"] == f"{ORIGIN}/sign_in/begin"
    assert not browser.cookies


@control("3.1.10")
async def test_a_session_is_locked_when_nobody_clicks(house, browser):
    """The page leaves by itself for one that shows nothing; then every page leads there, and nothing is asked of the APIs."""
    page = await browser.sign_in()
    assert page.headers["refresh"] == "901; url=/locked"
    house.clock.now += 901
    num_asked = len(house.gateway.asked)
    assert (await browser.get("/")).headers["location"] == "/locked"
    assert (await browser.get("/clients")).headers["location"] == "/locked"
    shown = (await browser.get("/locked")).text
    assert "ada" not in re.sub('name="form_token" value="[^"]*"', "", shown)  # Whose random letters may be hers.
    assert "Unlock" in shown
    assert len(house.gateway.asked) == num_asked


@control("3.1.10")
async def test_the_same_person_goes_on_where_they_were(house, browser):
    """With a new sign-in; the session of before is revoked. Somebody else begins at the beginning."""
    await browser.sign_in()
    await browser.get("/clients")
    await browser.post("/lock")
    assert (await browser.get("/clients")).headers["location"] == "/locked"
    house.clock.now += 5
    house.signed_in_at = house.clock.now
    asked = await browser.begin()
    back = await browser.get(f"/callback?code=c-2&state={asked['state']}&iss={ISSUER}")
    assert back.headers["refresh"] == "0; url=/clients"
    assert (await browser.get("/clients")).status_code == 200
    assert fields_of(next(one for one in house.authority.asked if one[1] == "/revoke"))["token"] == "refresh-1"
    house.subject = "user-eve"
    asked = await browser.begin()
    back = await browser.get(f"/callback?code=c-3&state={asked['state']}&iss={ISSUER}")
    assert back.headers["refresh"] == "0; url=/"


@control("3.1.11", "AC-12")
async def test_a_session_ends(house, browser):
    """However busy, after its lifetime; and by signing out, which revokes the refresh token."""
    await browser.sign_in()
    for _ in range(40):
        house.clock.now += 800
        await browser.get("/")
    assert (await browser.get("/")).headers["location"] == "/sign_in"
    house.signed_in_at = house.clock.now
    await browser.sign_in()
    house.authority.asked.clear()
    await browser.post("/sign_out")
    assert [one[1] for one in house.authority.asked] == ["/revoke"]
    assert COOKIE not in browser.cookies
    assert (await browser.get("/")).headers["location"] == "/sign_in"


async def test_tokens_are_replaced_before_they_end_and_a_refusal_ends_the_session(house, browser):
    """One refresh however many pages ask; the proof is by the same key."""
    await browser.sign_in()
    house.clock.now += 580
    await browser.get("/")
    refreshed = [fields_of(one) for one in house.authority.asked if one[1] == "/token"]
    assert [one["grant_type"] for one in refreshed] == ["authorization_code", "refresh_token"]
    assert refreshed[1]["refresh_token"] == "refresh-1"
    assert house.gateway.asked[-1][3]["Authorization"] == "DPoP access-2"
    house.clock.now += 580
    house.refusal = "invalid_grant"
    assert (await browser.get("/")).headers["location"] == "/sign_in"
    assert (await browser.get("/clients")).headers["location"] == "/sign_in"


async def test_a_nonce_that_an_api_asks_for_is_repeated(house, browser):
    """RFC 9449 section 9."""
    asked = []

    def answer(_method, _path, _body, headers):
        asked.append(parse_jws(headers["DPoP"]).payload().get("nonce"))
        if asked[-1] != "n-1":
            return 401, {"error": {"code": "use_dpop_nonce", "message": "the proof needs the nonce"}}
        return 200, []

    house.role = Role.AUDITOR
    await browser.sign_in()
    house.administration.answers, house.administration.nonce = answer, "n-1"
    assert (await browser.get("/clients")).status_code == 200
    assert (await browser.get("/clients")).status_code == 200
    assert asked == [None, "n-1", "n-1"]


@control("3.1.9", "AC-8")
async def test_the_notice_is_shown_before_sign_in(browser):
    """As it is written, and escaped."""
    assert "Authorized use &lt;only&gt;." in (await browser.get("/sign_in")).text
