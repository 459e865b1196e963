"""The authority over HTTP: its four routes, its answers, and above all that no token leaves without a durable record."""

import asyncio
import importlib
import json

import httpx
import pytest
import structlog
from authlib.integrations.httpx_client import AsyncOAuth2Client

from appliance.authority.application import PUBLIC_ROUTES, route_list
from appliance.authority.journal import Journal, JournalUnavailable
from appliance.messages.audit import AppendRefused, Recorded
from security.clients import ClientDefinition
from security.oauth.refresh_store import RefreshGrant
from security.oauth.token_request import MAX_BODY_BYTES
from security.users import UserDefinition
from tests.support.controls import control

ISSUER = "https://127.0.0.1:8444"


class SilentLink:
    """Says what it was given to say, whatever it is told, and then nothing more."""

    def __init__(self, messages):
        self._messages = list(messages)

    def send(self, message):
        """Takes it."""

    async def receive(self):
        if self._messages:
            return self._messages.pop(0)
        return await asyncio.Event().wait()


@control("3.1.12", "3.3.2", "AC-17", "AC-17(1)", "AU-3")
async def test_a_token_is_given_and_its_issue_is_in_the_log(house):
    """Who, from where, which token: but not the token."""
    answer = await house.ask(scope="inference")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["pragma"] == "no-cache"
    assert answer.headers["content-type"] == "application/json"
    (event,) = house.auditor.events
    own = event["unmapped"]["casemate"]
    assert (own["kind"], own["scope"]) == ("token_issued", "inference")
    assert event["src_endpoint"] == {"ip": "192.0.2.1", "port": 50_000}
    assert event["actor"]["app_uid"] == house.issued.client.client_id
    assert event["session"]["issuer"] == ISSUER
    text = json.dumps(house.auditor.events)
    assert answer.json()["access_token"] not in text
    assert house.issued.secret not in text


@control("AU-12", "SC-7(18)")
async def test_no_token_without_an_auditor(house):
    """503 at once, before the secret is even looked at."""
    await house.disconnect()
    for secret in (None, "wrong"):
        answer = await house.ask(secret=secret)
        assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
        assert answer.headers["retry-after"] == "1"
        assert "access_token" not in answer.text
    await house.connect()
    assert (await house.ask()).status_code == 200


async def test_no_token_when_the_record_is_refused_late_or_lost(house, monkeypatch):
    """A full disk; an auditor that hangs; one that dies while we wait."""
    house.auditor.refusal = "not_durable"
    assert (await house.ask()).status_code == 503
    house.auditor.refusal, house.auditor.answers = None, False
    monkeypatch.setattr(house.journal, "_timeout_s", 0.05)
    assert (await house.ask()).status_code == 503
    monkeypatch.undo()
    asking = asyncio.create_task(house.ask())
    while len(house.auditor.events) < 3:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await house.disconnect()
    assert (await asking).status_code == 503


async def test_refusals_are_recorded_too(house):
    """With the error and the claimed client, which is cut and made printable."""
    await house.ask(secret="wrong")
    await house.ask(scope="metrics.read")
    async with house.client() as client:
        await client.post(
            "/token",
            content=b"grant_type=x&client_id=" + b"%1B%0A" * 100 + b"&client_secret=y",
            headers={"content-type": "application/x-www-form-urlencoded"},
        )
    codes = [event["status_code"] for event in house.auditor.events]
    assert codes == ["invalid_client", "invalid_scope", "unsupported_grant_type"]
    assert house.auditor.kinds == ["token_refused"] * 3
    claimed = house.auditor.events[2]["actor"]["app_uid"]
    assert claimed == "?" * 128
    assert "wrong" not in json.dumps(house.auditor.events)


@control("3.1.8", "AC-7")
async def test_a_client_that_guesses_is_slowed_down(house):
    """After so many failures it is told to wait, even with the right secret; others are not; the log gets one record."""
    neighbour = house.registry.create(ClientDefinition(name="neighbour"), actor="ada")
    for _ in range(5):
        assert (await house.ask(secret="guess")).status_code == 401
    for secret in ("guess", None):
        answer = await house.ask(secret=secret)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "12")
    assert (await house.ask(address="192.0.2.2")).status_code == 200
    async with house.client() as client:
        auth = (neighbour.client.client_id, neighbour.secret)
        assert (await client.post("/token", data={"grant_type": "client_credentials"}, auth=auth)).status_code == 200
    assert len(house.auditor.events) == 7
    house.books.collect_suppressed()
    await house.books.record_waiting()
    event = house.auditor.events[-1]
    assert (event["status_code"], event["unmapped"]["casemate"]["num_times"]) == ("rate_limited", 2)
    assert event["src_endpoint"]["ip"] == "192.0.2.1"
    assert event["actor"]["app_uid"] == house.issued.client.client_id
    house.clock.now += 12
    assert (await house.ask()).status_code == 200


async def test_a_client_that_is_known_may_be_wrong_ten_times_as_often(house):
    """It guesses at nobody: who has shown its secret is told what is wrong; but does not fill the log with it."""
    answers = [(await house.ask(scope="nonsense")).json()["error"] for _ in range(52)]
    assert answers == ["invalid_scope"] * 50 + ["temporarily_unavailable"] * 2
    house.clock.now += 12
    assert (await house.ask()).status_code == 200
    assert (await house.ask(address="192.0.2.2", secret="guess")).status_code == 401


async def test_mistakes_of_a_client_without_a_secret_lock_nobody_out(house):
    """It guesses at nothing: its bound is the larger one, as anybody at its address could use up the smaller."""
    definition = ClientDefinition(
        name="app", kind="application", auth_method="none", redirect_uris=("https://app.example/",)
    )
    client_id = house.registry.create(definition, actor="t").client.client_id
    fields = {
        "grant_type": "authorization_code",
        "code": "x",
        "client_id": client_id,
        "redirect_uri": "https://app.example/",
    }
    async with house.client() as client:
        answers = [(await client.post("/token", data=fields)).status_code for _ in range(52)]
    assert answers == [400] * 50 + [429] * 2


async def test_what_strangers_do_changes_nothing_that_others_are_told(house):
    """Beyond the auditor's ration a refusal has no record of its own, and is what it was; a token needs its record."""
    house.auditor.refusal = "rationed"
    answer = await house.ask(secret="guess")
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert (await house.ask(scope="nonsense")).json()["error"] == "invalid_scope"
    answer = await house.ask()
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
    async with house.client() as client:
        fields = {"login": "nobody", "password": "x"}
        refused = await client.post("/sign_in", data=fields, headers={"origin": ISSUER})
    assert (refused.status_code, "is not right" in refused.text) == (401, True)


@pytest.mark.parametrize(("refusal", "status"), [("rationed", 429), ("not_durable", 503)])
async def test_what_was_asked_for_in_vain_may_be_asked_for_again(house, refusal, status):
    """A refresh token whose successor could not be recorded is no token that came back."""
    application = house.registry.create(
        ClientDefinition(name="app", kind="application", auth_method="none", redirect_uris=("https://app.example/",)),
        actor="t",
    ).client
    user = house.registry.users.create(UserDefinition(login="ada", name="Ada"), actor="t").user
    grant = RefreshGrant(
        client_id=application.client_id, user_id=user.user_id, scope="inference", auth_time=int(house.utc.now)
    )
    _, token = house.refresh.begin(grant, idle_s=3600, ends_at=int(house.utc.now) + 36_000)
    fields = {"grant_type": "refresh_token", "refresh_token": token, "client_id": application.client_id}
    async with house.client() as client:
        house.auditor.refusal = refusal
        for _ in range(2):
            assert (await client.post("/token", data=fields)).status_code == status
        house.auditor.refusal = None
        assert (await client.post("/token", data=fields)).status_code == 200
        assert (await client.post("/token", data=fields)).json()["error"] == "invalid_grant"
    assert "refresh_token_reused" in house.auditor.kinds


async def test_a_mistake_of_ours_is_an_answer_too(house, monkeypatch):
    """In the form that clients read, and in no cache."""
    monkeypatch.setattr(house.authority, "metadata", lambda: 1 / 0)
    transport = httpx.ASGITransport(app=house.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=ISSUER) as client:
        answer = await client.get("/.well-known/oauth-authorization-server")
    assert (answer.status_code, answer.json()) == (500, {"error": "server_error"})
    assert answer.headers["cache-control"] == "no-store"


async def test_guesses_in_parallel_gain_nothing(house):
    """The bucket is looked at and charged without waiting in between."""
    answers = await asyncio.gather(*(house.ask(secret="guess") for _ in range(30)))
    assert sorted(answer.status_code for answer in answers) == [401] * 5 + [429] * 25


async def test_metadata_and_keys(house):
    """RFC 8414 at its well-known place, for the address that is configured, whatever Host says."""
    async with house.client() as client:
        metadata = (
            await client.get("/.well-known/oauth-authorization-server", headers={"host": "evil.example"})
        ).json()
        assert metadata["issuer"] == ISSUER
        assert metadata["jwks_uri"] == ISSUER + "/jwks.json"
        keys = await client.get("/jwks.json")
    assert keys.headers["cache-control"] == "max-age=300"
    assert keys.headers["x-content-type-options"] == "nosniff"
    assert [key["kid"] for key in keys.json()["keys"]] == [house.keys.current.kid]
    assert "d" not in keys.json()["keys"][0]


async def test_health_is_whether_a_token_could_be_given(house):
    """Alive without the auditor would be a lie."""
    async with house.client() as client:
        assert (await client.get("/health")).status_code == 200
        await house.disconnect()
        answer = await client.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")


def test_there_are_no_other_routes(house):
    """The list is pinned."""
    assert sorted(route_list(house.app)) == sorted(PUBLIC_ROUTES)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/token", 405),
        ("PUT", "/token", 405),
        ("OPTIONS", "/token", 405),
        ("POST", "/jwks.json", 405),
        ("POST", "/token/", 404),
        ("GET", "/", 404),
        ("GET", "/docs", 404),
        ("GET", "/openapi.json", 404),
        ("GET", "/metrics", 404),
        ("GET", "//jwks.json", 404),
        ("GET", "/jwks.json/", 404),
        ("GET", "/%2e%2e/jwks.json", 404),
        ("GET", "/.well-known/openid-configuration", 404),
    ],
)
async def test_what_is_not_a_route_does_not_exist(house, method, path, status):
    """JSON, no redirects, no names of frameworks."""
    async with house.client() as client:
        answer = await client.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"] in ("not_found", "invalid_request")
    assert "server" not in answer.headers


async def test_a_body_without_end_is_cut(house):
    """Read to the limit and not a chunk further."""
    chunks = 0

    async def endless():
        nonlocal chunks
        while True:
            chunks += 1
            yield b"a" * 4096

    async with house.client() as client:
        answer = await client.post(
            "/token", content=endless(), headers={"content-type": "application/x-www-form-urlencoded"}
        )
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert chunks <= MAX_BODY_BYTES // 4096 + 2


async def test_a_body_that_does_not_come_is_given_up(house, monkeypatch):
    """A client that sends one byte and waits."""
    monkeypatch.setattr("appliance.authority.http.BODY_TIMEOUT_S", 0.05)

    async def slow():
        yield b"g"
        await asyncio.sleep(5)

    async with house.client() as client:
        answer = await client.post(
            "/token", content=slow(), headers={"content-type": "application/x-www-form-urlencoded"}
        )
    assert answer.status_code == 408
    assert house.auditor.events == []


async def test_without_policy_it_is_unavailable_not_unauthorized(house):
    """Nobody is told that a good secret is bad."""
    house.directory.is_away = True
    assert (await house.ask()).status_code == 503
    assert house.auditor.events == []


async def test_two_authorization_headers_are_refused(house):
    """Which of the two counts must not depend on who reads them."""
    headers = [
        ("authorization", "Basic eDp5"),
        ("authorization", "Basic eDp6"),
        ("content-type", "application/x-www-form-urlencoded"),
    ]
    async with house.client() as client:
        answer = await client.post("/token", content=b"grant_type=client_credentials", headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_what_the_auditor_does_not_take_is_kept(house):
    """Counts wait until they are durable, and are told once."""
    for _ in range(5):
        house.failures.count_failure("192.0.2.9", "x")
    assert house.failures.retry_after_s("192.0.2.9", "x")
    house.books.collect_suppressed()
    house.auditor.refusal = "not_durable"
    await house.books.record_waiting()
    house.auditor.refusal = None
    for _ in range(2):
        await house.books.record_waiting()
    assert house.auditor.kinds == ["token_refused", "token_refused"]


async def test_the_operators_log_holds_no_secret(house):
    """A canary in every place that a client controls."""
    with structlog.testing.capture_logs() as logs:
        await house.ask()
        await house.ask(secret="canary-secret")
        async with house.client() as client:
            await client.post("/token?canary=1", content=b"canary", headers={"authorization": "Bearer canary"})
    assert [entry["event"] for entry in logs] == ["token_issued", "token_refused", "token_refused"]
    assert "canary" not in json.dumps(logs)
    assert house.issued.secret not in json.dumps(logs)


async def test_an_old_signing_key_is_replaced_while_tokens_go_on(house):
    """Published first, signing later, the old one gone when nothing needs it; policy and the log hear of each step."""
    first = house.keys.current
    house.books.rotate_keys()
    assert house.directory.num_published == 0
    house.utc.now += 91 * 86_400
    house.books.rotate_keys()
    assert (house.keys.current, len(house.keys.all), house.directory.num_published) == (first, 2, 1)
    assert (await house.ask()).status_code == 200
    house.utc.now += 601
    house.books.rotate_keys()
    second = house.keys.current
    assert (second.kid != first.kid, house.directory.num_published) == (True, 1)
    assert (await house.ask()).status_code == 200
    house.utc.now += 7201
    house.books.rotate_keys()
    assert (house.keys.all, house.directory.num_published) == ((second,), 2)
    await house.books.record_waiting()
    stages = [
        event["updated_entity"]["data"]["stage"]
        for event in house.auditor.events
        if event["unmapped"]["casemate"]["kind"] == "key_rotated"
    ]
    assert stages == ["published", "removed"]


async def test_an_answer_for_nobody_is_ignored():
    """A record that came after we gave up waiting, or for a number that we never sent."""
    journal = Journal(timeout_s=0.05)
    link = SilentLink([Recorded(7, 1), AppendRefused(9, "malformed", "x")])
    serving = asyncio.create_task(journal.run(link))
    await asyncio.sleep(0)
    with pytest.raises(JournalUnavailable, match="within"):
        await journal.record(b"{}")
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    with pytest.raises(JournalUnavailable, match="away"):
        await journal.record(b"{}")


async def test_clients_of_the_house_use_standard_libraries(house):
    """authlib's own OAuth client gets a token from the metadata alone: an outside judge of the wire format."""
    # authlib speaks through whichever of the two it finds.
    library = importlib.import_module(AsyncOAuth2Client.__mro__[2].__module__.partition(".")[0])
    transport = library.ASGITransport(app=house.app, client=("192.0.2.1", 1))
    async with library.AsyncClient(transport=transport, base_url=ISSUER) as plain:
        metadata = (await plain.get("/.well-known/oauth-authorization-server")).json()
    for method in ("client_secret_basic", "client_secret_post"):
        assert method in metadata["token_endpoint_auth_methods_supported"]
        async with AsyncOAuth2Client(
            house.issued.client.client_id, house.issued.secret, token_endpoint_auth_method=method, transport=transport
        ) as client:
            token = await client.fetch_token(
                metadata["token_endpoint"], grant_type="client_credentials", scope="inference"
            )
        assert (token["token_type"], token["scope"]) == ("Bearer", "inference")
