"""The admin API: the same changes as by command, for administrators' tokens only, recorded under their names."""

import httpx
import pytest

from appliance.gateway.identity import Presented, Principal, TokenRefused
from appliance.gateway.rejections import Rejections
from appliance.policy import store as store_module
from appliance.policy.administration.application import AdminApplication
from appliance.policy.administration.endpoints import Administration
from appliance.policy.recording import build_change_record
from appliance.policy.store import DefinitionsStore
from audit.entry import parse_canonical
from audit.permissions import verify_permitted
from security.registry.database import Database
from security.registry.snapshot import read_definitions
from security.scopes import GRANTABLE, Role
from tests.support.controls import control
from tests.support.definitions import KEY, Registry


def principal(role, subject, client="console", acting=""):
    scopes = frozenset(scope.value for scope in GRANTABLE[role])
    return Principal(
        client,
        subject,
        "default",
        role.value,
        scopes,
        "https://issuer",
        "kid",
        "jti",
        4_000_000_000,
        True,
        acting,
    )


KEYS = '{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}]}'
PEOPLE = {
    "ada": principal(Role.ADMIN, "user-ada"),
    "eve": principal(Role.ADMIN, "user-eve"),
    "program": principal(Role.ADMIN, "robot", client="robot"),
    "acting": principal(Role.ADMIN, "user-ada", client="robot", acting="robot"),
    "auditor": principal(Role.AUDITOR, "user-bob"),
    "user": principal(Role.USER, "user-joe"),
    "operator": principal(Role.OPERATOR, "user-ops"),
}


async def check(presented: Presented) -> Principal:
    if presented.token not in PEOPLE:
        raise TokenRefused("not ours")
    return PEOPLE[presented.token]


class Api:
    """The listener's application with a client before it."""

    def __init__(self, registry, store):
        self.registry = registry
        self.reported = []
        self.rejections = Rejections(self.reported.append, "admin API")
        self.application = AdminApplication(Administration(store, KEY), check, self.rejections)

    async def ask(self, who, method, path, body=None):
        transport = httpx.ASGITransport(app=self.application)
        headers = {} if who is None else {"authorization": f"Bearer {who}"}
        async with httpx.AsyncClient(transport=transport, base_url="https://localhost") as client:
            if isinstance(body, bytes):
                headers["content-type"] = "application/json"
                return await client.request(method, path, content=body, headers=headers)
            return await client.request(
                method, path, json={} if body is None and method != "GET" else body, headers=headers
            )


@pytest.fixture
async def api(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "MIN_LOOK_INTERVAL_S", 0.0)
    registry = Registry(tmp_path / "d.sqlite")
    store = DefinitionsStore(Database.open(tmp_path / "d.sqlite"), max_age_s=1)
    yield Api(registry, store)
    store.close()
    registry.close()


@control(
    "3.1.7",
    "3.1.15",
    "3.3.9",
    "3.13.3",
    "AC-2(1)",
    "AC-6(1)",
    "AC-6(3)",
    "AC-6(10)",
    "AC-17(4)",
    "AU-9(4)",
    "SC-2",
    "SI-4(20)",
)
async def test_every_route_is_for_administrators_or_for_those_who_may_look(api):
    """Without a token 401 alike; users and operators 403; auditors read and change nothing."""
    for route in api.application.routes:
        path = route.path.replace("{id}", "x")
        assert (await api.ask(None, route.method, path)).status_code == 401
        assert (await api.ask("stranger", route.method, path)).status_code == 401
        for who in ("user", "operator"):
            assert (await api.ask(who, route.method, path)).status_code == 403
        assert (await api.ask("auditor", route.method, path)).status_code == (200 if route.method == "GET" else 403)
    assert (await api.ask(None, "GET", "/admin/nothing")).status_code == 401
    assert (await api.ask("ada", "GET", "/admin/nothing")).status_code == 404


@control("3.1.7", "3.1.15", "3.3.2", "AC-2(1)", "AC-6(9)", "AC-17(4)", "SI-4(20)")
async def test_a_change_is_recorded_under_whose_token_it_was(api):
    """Created, disabled, enabled, rotated; the secret is in the answer and nowhere else."""
    made = (await api.ask("ada", "POST", "/admin/clients", {"name": "app", "models": ["m"]})).json()
    client_id = made["client_id"]
    assert api.registry.authenticate(client_id, made["client_secret"]) is not None
    for path in ("disable", "enable", "rotate"):
        assert (await api.ask("eve", "POST", f"/admin/clients/{path}/{client_id}")).status_code == 200
    changes = api.registry.changes()
    assert [(one.action, one.actor) for one in changes] == [
        ("client_created", "user:user-ada"), ("client_disabled", "user:user-eve"),
        ("client_enabled", "user:user-eve"), ("client_secret_rotated", "user:user-eve"),
    ]  # fmt: skip
    (listed,) = (await api.ask("auditor", "GET", "/admin/clients")).json()
    assert listed["client_id"] == client_id
    assert not {"secret_hash", "client_secret"} & listed.keys()


@control("3.1.4", "AC-3(2)", "AC-5", "AC-6(1)")
async def test_roles_need_two_people_and_never_a_program(api):
    """Neither by itself nor acting for somebody."""
    api.registry.roles.set_two_person(True, actor="configuration")
    new = (await api.ask("ada", "POST", "/admin/users", {"login": "bob", "name": "Bob"})).json()
    assert new["password"]
    for who in ("program", "acting"):
        for path, body in (
            ("/admin/roles/grant/bob", {"role": "auditor"}), ("/admin/roles/approve/bob", None),
            ("/admin/users", {"login": "x", "name": "X"}), ("/admin/clients", {"name": "x", "role": "admin"}),
        ):  # fmt: skip
            answer = await api.ask(who, "POST", path, body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "needs_a_person")
    assert (await api.ask("ada", "POST", "/admin/roles/grant/bob", {"role": "auditor"})).json()[
        "pending_role"
    ] == "auditor"
    assert (await api.ask("ada", "POST", "/admin/roles/approve/bob")).status_code == 400
    assert [one["login"] for one in (await api.ask("ada", "GET", "/admin/roles/pending")).json()] == ["bob"]
    shown = await api.ask("eve", "POST", "/admin/roles/approve/bob", {"role": "steward"})
    assert (shown.status_code, "the role auditor, not steward" in shown.json()["error"]["message"]) == (400, True)
    answer = await api.ask("eve", "POST", "/admin/roles/approve/bob", {"role": "auditor"})
    assert answer.json()["role"] == "auditor"


@control("3.1.4", "AC-5", "AC-6(5)")
async def test_a_program_replaces_nothing_that_a_privileged_account_signs_in_by(api):
    """Neither by itself nor acting for somebody; a person does, and a second one agrees."""
    made = [await api.ask("ada", "POST", "/admin/clients", {"name": "watch", "role": "auditor"})]
    made.append(await api.ask("ada", "POST", "/admin/users", {"login": "bob", "name": "Bob", "role": "auditor"}))
    client_id, before = made[0].json()["client_id"], len(api.registry.changes())
    for who in ("program", "acting"):
        for path, body in (
            (f"/admin/clients/rotate/{client_id}", {}), (f"/admin/clients/keys/{client_id}", {"jwks": KEYS}),
            ("/admin/users/reset/bob", {}),
        ):  # fmt: skip
            answer = await api.ask(who, "POST", path, body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "needs_a_person")
    assert len(api.registry.changes()) == before
    api.registry.roles.set_two_person(True, actor="configuration")
    assert (await api.ask("ada", "POST", f"/admin/clients/rotate/{client_id}")).json()["is_pending"]
    assert (await api.ask("ada", "POST", f"/admin/roles/approve/{client_id}")).status_code == 400
    assert not (await api.ask("eve", "POST", f"/admin/roles/approve/{client_id}")).json()["is_pending"]


async def test_models_and_keys_are_changed_as_by_command(api):
    """Of a client and of a role; null is all of them again."""
    definition = {"name": "app", "auth_method": "private_key_jwt", "jwks": KEYS}
    client_id = (await api.ask("program", "POST", "/admin/clients", definition)).json()["client_id"]
    for models in (["a", "b"], [], None):
        answer = await api.ask("program", "POST", f"/admin/clients/models/{client_id}", {"models": models})
        assert (answer.status_code, answer.json()["models"]) == (200, models)
        answer = await api.ask("program", "PUT", "/admin/roles/models", {"role": "user", "models": models})
        assert answer.json() == {"role": "user", "models": models}
        expected = None if models is None else tuple(models)
        assert read_definitions(api.registry.database).role_models.get(Role.USER) == expected
    other = KEYS.replace("AAAA", "BBBB")
    assert (await api.ask("ada", "POST", f"/admin/clients/keys/{client_id}", {"jwks": other})).status_code == 200
    assert api.registry.find(client_id).jwks == other


async def test_limits_and_keys(api):
    """Set, removed; made, listed, revoked by the dozen after a dry run."""
    body = {"subject": "tenant", "name": "acme", "limits": {"tokens_per_day": 5}}
    assert (await api.ask("ada", "PUT", "/admin/limits", body)).status_code == 200
    assert (await api.ask("ada", "GET", "/admin/limits")).json()[0]["limits"]["tokens_per_day"] == 5
    assert (await api.ask("ada", "PUT", "/admin/limits", {"subject": "tenant", "name": "acme"})).status_code == 200
    client_id = (await api.ask("ada", "POST", "/admin/clients", {"name": "app"})).json()["client_id"]
    key = (await api.ask("ada", "POST", "/admin/keys", {"client_id": client_id, "networks": ["::1"]})).json()
    assert key["key"].startswith("cm-")
    wanted = {"selection": {"client_id": client_id}}
    dry = (await api.ask("ada", "POST", "/admin/keys/revoke", {**wanted, "dry_run": True})).json()
    assert [one["key_id"] for one in dry] == [key["key_id"]]
    assert api.registry.keys.all()[0].revoked_at is None
    assert (await api.ask("ada", "POST", "/admin/keys/revoke", wanted)).json()[0]["revoked_at"] is not None


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/admin/clients", {"name": ""}),
        ("POST", "/admin/clients", {"name": "a", "extra": 1}),
        ("POST", "/admin/clients", {"name": "a", "scope": "nonsense"}),
        ("POST", "/admin/clients", {"name": "a", "auth_method": "private_key_jwt", "jwks": "{}"}),
        ("POST", "/admin/clients/disable/nobody", {}),
        ("POST", "/admin/clients/keys/nobody", {"jwks": "{}"}),
        ("POST", "/admin/clients/models/nobody", {}),
        ("POST", "/admin/clients/models/nobody", {"models": ["a b"]}),
        ("POST", "/admin/clients/models/nobody", {"models": None}),
        ("PUT", "/admin/roles/models", {"role": "root", "models": None}),
        ("POST", "/admin/users", {"login": "bob", "name": "Bob", "role": "auditor", "totp": False}),
        ("POST", "/admin/users", {"login": "A B", "name": "x"}),
        ("POST", "/admin/roles/grant/nobody", {"role": "admin"}),
        ("POST", "/admin/roles/grant/nobody", {"role": "root"}),
        ("PUT", "/admin/limits", {"subject": "planet", "name": "x", "limits": {}}),
        ("PUT", "/admin/limits", {"subject": "user", "name": "x", "limits": {"tokens_per_day": -1}}),
        ("PUT", "/admin/limits", {"subject": "user", "name": "x", "limits": {"request_per_minute": 1}}),
        ("POST", "/admin/keys/revoke", {"selection": {"created_before": 9, "tennant": "acme"}}),
        ("POST", "/admin/keys", {"client_id": "nobody", "networks": ["::1"]}),
        ("POST", "/admin/keys/revoke", {}),
        ("POST", "/admin/keys/revoke", {"key_ids": ["none"]}),
        ("POST", "/admin/keys/revoke", {"key_ids": ["none"], "dry_run": True}),
        ("POST", "/admin/clients/enable/nobody", {"unknown": 1}),
        ("GET", "/admin/keys?tenant=acme", None),
        ("POST", "/admin/clients?tenant=acme", {"name": "a"}),
    ],
)
async def test_what_makes_no_sense_is_refused_and_changes_nothing(api, method, path, body):
    """400 with the reason; no change, no record."""
    answer = await api.ask("ada", method, path, body)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert api.registry.changes() == []


@pytest.mark.parametrize(
    "kind", ["clients/disable", "clients/enable", "clients/rotate", "users/disable", "users/reset"]
)
async def test_where_the_address_says_all_a_body_has_nothing(api, kind):
    """What is in it would be passed over, and was meant."""
    made = (await api.ask("ada", "POST", "/admin/clients", {"name": "app"})).json()["client_id"]
    if kind.startswith("users"):
        made = (await api.ask("ada", "POST", "/admin/users", {"login": "bob", "name": "Bob"})).json()["user_id"]
    refused = await api.ask("ada", "POST", f"/admin/{kind}/{made}", {"reason": "left"})
    assert (refused.status_code, "reason" in refused.json()["error"]["message"]) == (400, True)
    assert (await api.ask("ada", "POST", f"/admin/{kind}/{made}", {})).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/admin/clients", b'{"name": "a", "name": "b"}'),
        ("POST", "/admin/clients", b'{"name": "a", "models": ["m"], "models": null}'),
        ("POST", "/admin/clients", b'{"name": "a", "role": "user", "\\u0072ole": "user"}'),
        (
            "PUT",
            "/admin/limits",
            b'{"subject": "user", "name": "x", "limits": {"tokens_per_day": 1, "tokens_per_day": 9}}',
        ),
        ("POST", "/admin/clients", b'{"name": "a"} {}'),
        ("POST", "/admin/clients", b"[" * 5000),
        ("POST", "/admin/clients", b"\xff"),
    ],
)
async def test_a_member_that_is_given_twice_is_refused(api, method, path, body):
    """As at the gateway: whoever looks at it on its way may read the first one, and the change is the last."""
    answer = await api.ask("ada", method, path, body)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert api.registry.changes() == []


@control("3.1.7", "3.14.6", "AC-6(10)", "AU-2", "SI-4")
async def test_whoever_is_turned_away_is_recorded_and_by_name_where_the_token_is_good(api):
    """A stranger, two without the scope, and a program that would grant a role: by policy, in OCSF's places."""
    asked = [
        (None, "GET", "/admin/users"),
        ("forged", "GET", "/admin/users"),
        ("forged", "GET", "/admin/users"),
        ("auditor", "POST", "/admin/limits"),
        ("user", "GET", "/admin/clients"),
        ("program", "POST", "/admin/roles/grant/client-1"),
        ("ada", "GET", "/admin/users"),
    ]
    for who, method, path in asked:
        await api.ask(who, method, path, {"role": "admin"} if "grant" in path else None)
    api.rejections.flush()
    events = [parse_canonical(data) for data in api.reported]
    for event in events:
        assert verify_permitted("policy", "event", event).name == "token_rejected"
        assert event["service"] == {"name": "casemate admin API"}
    told = [
        (event["status_code"], event["unmapped"]["casemate"]["num_times"], event.get("actor"), event["user"])
        for event in events
    ]
    assert told == [
        ("missing_token", 1, None, {"name": "unknown"}),
        ("invalid_token", 2, None, {"name": "unknown"}),
        ("insufficient_scope", 1, {"app_uid": "console"}, {"type_id": 1, "uid": "user-joe"}),
        ("needs_a_person", 1, {"app_uid": "robot"}, {"type_id": 4, "uid": "robot"}),
    ]
    assert {event.get("session", {}).get("uid") for event in events[2:]} == {"jti"}
    assert {event["metadata"].get("tenant_uid") for event in events} == {None, "default"}


@control("3.3.2", "AU-3", "AU-3(1)")
async def test_a_changes_record_says_from_where_and_by_which_token(api):
    """What is done on the host afterwards has no such place."""
    created = (await api.ask("ada", "POST", "/admin/clients", {"name": "batch"})).json()
    api.registry.disable(created["client_id"], actor="os:eve")
    remote, local = [parse_canonical(build_change_record(change)) for change in api.registry.changes()]
    assert remote["actor"] == {
        "app_uid": "console",
        "session": {"uid": "jti"},
        "user": {"name": "user:user-ada", "type_id": 1},
    }
    assert remote["src_endpoint"] == {"ip": "127.0.0.1", "port": 123}
    assert local["actor"] == {"user": {"name": "os:eve", "type_id": 1}}
    assert "src_endpoint" not in local
