"""The token endpoint without HTTP: every error of client_credentials as its RFC words it, and what a success holds."""

import base64
import json
import logging

import pytest
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from security.clients import ClientDefinition
from security.errors import MalformedDocument
from security.oauth.failure_limit import FailureLimit, Suppressed, normalize_source
from security.oauth.grant_types import GRANT_TYPES
from security.oauth.registered_client import AUTH_METHODS
from security.oauth.resource import AccessTokenValidator
from security.oauth.token_request import MAX_BODY_BYTES, TokenRequest, parse_basic
from security.scopes import GRANTABLE, Role, Scope, format_scopes, parse_scopes
from tests.support.authority import FORM, build_authority, decide
from tests.support.controls import control
from tests.support.definitions import Registry

NOW = 1_800_000_000
ISSUER = "https://authority.example:8444"
AUDIENCE = "https://gateway.example:8443"
GRANT = b"grant_type=client_credentials"


class Setting:
    """An authority with one client of role user."""

    def __init__(self, issuer, registry, folder):
        self.registry = registry
        self.issued = registry.create(ClientDefinition(name="demo", models=("tiny",)), actor="test")
        self.client_id, self.secret = self.issued.client.client_id, self.issued.secret
        self.authority, self.facts, self.refresh = build_authority(
            registry, issuer.keys, folder, issuer=ISSUER, resource=AUDIENCE, clock=issuer.clock
        )

    def basic(self, client_id=None, secret=None):
        pair = f"{self.client_id if client_id is None else client_id}:{self.secret if secret is None else secret}"
        return "Basic " + base64.b64encode(pair.encode()).decode()

    def decide(self, body=GRANT, *, authorization=..., query="", content_type=FORM):
        headers = (self.basic(),) if authorization is ... else authorization
        request = TokenRequest(query=query, content_type=content_type, authorization=tuple(headers), body=body)
        return decide(self.authority, request)

    def refused(self, status, error, *arguments, **options):
        decision = self.decide(*arguments, **options)
        body = json.loads(decision.body)
        assert (decision.status, body["error"], decision.error) == (status, error, error), decision.body
        assert decision.minted is None
        assert "access_token" not in body
        headers = dict(decision.headers)
        assert headers["Cache-Control"] == "no-store"
        assert headers["Content-Type"] == "application/json"
        if error == "invalid_client":
            assert headers["WWW-Authenticate"] == 'Basic realm="casemate", charset="UTF-8"'
        else:
            assert "WWW-Authenticate" not in headers
        return decision


@pytest.fixture
def setting(issuer, tmp_path):
    registry = Registry(tmp_path / "clients.sqlite", clock=issuer.clock)
    made = Setting(issuer, registry, tmp_path)
    yield made
    made.refresh.close()
    registry.close()


async def test_a_token_is_what_the_gateway_accepts(setting, issuer):
    """Issued by one half, validated by the other, with nothing between them but the published keys."""
    decision = setting.decide()
    body = json.loads(decision.body)
    assert decision.status == 200
    assert body.keys() == {"access_token", "token_type", "expires_in", "scope"}
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 600)
    headers = dict(decision.headers)
    assert (headers["Cache-Control"], headers["Pragma"]) == ("no-store", "no-cache")
    token = await AccessTokenValidator(issuer.ring, issuer=ISSUER, audience=AUDIENCE, clock=issuer.clock).validate(
        body["access_token"]
    )
    minted = decision.minted
    assert (token.client_id, token.jti, token.kid) == (minted.client_id, minted.jti, minted.kid)
    assert token.expires_at == minted.expires_at == NOW + 600
    assert (token.role, token.tenant, token.scopes) == ("user", "default", GRANTABLE[Role.USER])
    assert len(base64.urlsafe_b64decode(token.jti + "==")) == 16


def test_both_methods_of_authentication_work(setting):
    """client_secret_basic and client_secret_post (RFC 6749 section 2.3.1)."""
    assert setting.decide().auth_method == "client_secret_basic"
    body = GRANT + f"&client_id={setting.client_id}&client_secret={setting.secret}".encode()
    decision = setting.decide(body, authorization=())
    assert (decision.status, decision.auth_method, decision.client_id) == (200, "client_secret_post", setting.client_id)
    assert setting.decide(GRANT + f"&client_id={setting.client_id}".encode()).status == 200


def test_every_token_is_another(setting):
    """jti is random."""
    assert len({json.loads(setting.decide().body)["access_token"] for _ in range(20)}) == 20


@pytest.mark.parametrize(
    "authorization",
    [
        (),
        ("Bearer x",),
        ("Basic",),
        ("Basic ",),
        ("Basic !!!",),
        ("Basic //79/A==",),
        ("Basic YWJj",),
        ("Basic OnNlY3JldA==",),
        ("Basic YWJjOg==",),
        ("Digest x=y",),
        ("",),
        ("Basic " + "A" * 5000,),
        ("Basic YTolRkY=",),
    ],
)
def test_invalid_client_for_missing_or_malformed_credentials(setting, authorization):
    """RFC 6749 section 5.2: 401 with a challenge. A header that is not UTF-8 is a refusal, not a crash."""
    setting.refused(401, "invalid_client", authorization=authorization)


@control("3.5.11", "IA-6", "SI-11")
def test_invalid_client_does_not_tell_what_was_wrong(setting):
    """Unknown client, wrong secret, another client's secret, disabled client: the same bytes."""
    other = setting.registry.create(ClientDefinition(name="other"), actor="test")
    answers = {
        setting.refused(401, "invalid_client", authorization=(header,)).body
        for header in (
            setting.basic(client_id="nobody"),
            setting.basic(secret="cms-wrong"),
            setting.basic(secret=other.secret),
            setting.basic(secret=setting.secret[:-1]),
            setting.basic(secret="x" * 3000),
            setting.basic(client_id=setting.client_id.upper()),
        )
    }
    setting.registry.disable(setting.client_id, actor="test")
    answers.add(setting.refused(401, "invalid_client").body)
    assert len(answers) == 1
    assert setting.refused(401, "invalid_client").authenticated is False


def test_a_rotated_secret_ends_the_old_one(setting):
    """At once."""
    renewed = setting.registry.rotate(setting.client_id, actor="test")
    setting.refused(401, "invalid_client")
    assert setting.decide(authorization=(setting.basic(secret=renewed.secret),)).status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"scope=inference",
        b"grant_type=",
        b"grant_type=client_credentials&grant_type=client_credentials",
        b"grant_type=client_credentials&scope=inference&scope=models.read",
        b"grant_type=client_credentials&x=1&x=2",
        b"grant_type=client_credentials&scope=&scope=inference",
        b"grant_type",
        b"\xff=1",
        b"grant_type=client_credentials&scope=%FF",
        b'{"grant_type":"client_credentials"}',
        b"grant_type=client_credentials&" + b"&".join(b"p%d=1" % n for n in range(40)),
        GRANT + b"&a=" + b"x" * MAX_BODY_BYTES,
    ],
)
def test_invalid_request_for_forms_that_are_not_one(setting, body):
    """RFC 6749 section 5.2: missing, repeated or malformed parameters."""
    setting.refused(400, "invalid_request", body)


def test_invalid_request_for_anything_but_a_form_in_the_body(setting):
    """Credentials in the query end in somebody's log."""
    setting.refused(400, "invalid_request", query="grant_type=client_credentials")
    for content_type in ("", "application/json", "multipart/form-data; boundary=x", "text/plain"):
        setting.refused(400, "invalid_request", content_type=content_type)
    assert setting.decide(content_type="Application/X-WWW-Form-URLEncoded; charset=UTF-8").status == 200


def test_invalid_request_for_two_methods_of_authentication(setting):
    """RFC 6749 section 2.3: not more than one in a request."""
    secret = f"&client_id={setting.client_id}&client_secret={setting.secret}".encode()
    setting.refused(400, "invalid_request", GRANT + secret)
    setting.refused(400, "invalid_request", authorization=(setting.basic(), setting.basic()))
    setting.refused(400, "invalid_request", GRANT + b"&client_id=somebody-else")


@pytest.mark.parametrize(
    "grant",
    [
        "password",
        "implicit",
        "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "x%22y",
        "%C3%A9",
    ],
)
def test_unsupported_grant_type(setting, grant):
    """And the answer does not repeat what was sent."""
    decision = setting.refused(400, "unsupported_grant_type", f"grant_type={grant}".encode())
    assert grant.encode() not in decision.body


@pytest.mark.parametrize(
    "grant", ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"]
)
def test_a_service_may_not_use_an_applications_grants(setting, grant):
    """RFC 6749 section 5.2, before anything of the grant is looked at."""
    setting.refused(400, "unauthorized_client", f"grant_type={grant}".encode())


@pytest.mark.parametrize(
    "scope",
    ["metrics.read", "inference+metrics.read", "public", "unknown", "inference++models.read", "Inference", "%22", "+"],
)
def test_invalid_scope(setting, scope):
    """More than the client has, or no scope at all: refused, never narrowed in silence."""
    decision = setting.refused(400, "invalid_scope", GRANT + f"&scope={scope}".encode())
    assert decision.authenticated


def test_the_scope_is_a_subset_in_a_fixed_order(setting):
    """RFC 6749 section 3.3; without one, all that the client has."""
    assert json.loads(setting.decide(GRANT + b"&scope=models.read+inference").body)["scope"] == "inference models.read"
    assert json.loads(setting.decide(GRANT + b"&scope=").body)["scope"] == "inference models.read audit.read"


def test_invalid_target(setting):
    """RFC 8707 section 2: the gateway, named once or more, with the path `/` or without, and nothing else."""
    ours = f"&resource={AUDIENCE}".encode()
    assert setting.decide(GRANT + ours + ours + b"/").status == 200
    foreign = b"&resource=https://elsewhere.example"
    for other in (foreign, ours + b"//", ours + b"/v1", ours + b"/#a", ours + b"?a", ours + foreign):
        assert setting.refused(400, "invalid_target", GRANT + other).authenticated


def test_the_secret_is_checked_before_anything_is_said_of_scope_or_target(setting):
    """A stranger learns nothing of what a client may have."""
    wrong = (setting.basic(secret="cms-wrong"),)
    setting.refused(401, "invalid_client", GRANT + b"&scope=unknown&resource=https://x", authorization=wrong)


def test_metadata_says_what_is_there_and_no_more(setting):
    """RFC 8414: the issuer is the address, and every endpoint is below it."""
    metadata = setting.authority.metadata()
    assert metadata["issuer"] == ISSUER
    assert metadata["token_endpoint"] == ISSUER + "/token"
    assert metadata["jwks_uri"] == ISSUER + "/jwks.json"
    assert set(metadata["grant_types_supported"]) == set(GRANT_TYPES)
    assert metadata["token_endpoint_auth_methods_supported"] == list(AUTH_METHODS)
    assert metadata["code_challenge_methods_supported"] == ["S256"]
    assert metadata["tls_client_certificate_bound_access_tokens"] is True
    assert "none" not in metadata["introspection_endpoint_auth_methods_supported"]
    assert "public" not in metadata["scopes_supported"]
    assert all(url.startswith(ISSUER) for name, url in metadata.items() if name.endswith(("_endpoint", "_uri")))
    assert "registration_endpoint" not in metadata
    AuthorizationServerMetadata(metadata).validate()  # authlib's reading of the RFC


def test_secrets_and_tokens_are_in_no_log_and_no_repr(setting, caplog):
    """authlib's own grant logs the token at level DEBUG; ours does not run that line."""
    with caplog.at_level(logging.DEBUG):
        decision = setting.decide()
    token = json.loads(decision.body)["access_token"]
    shown = caplog.text + repr(decision) + repr(setting.issued) + repr(parse_basic(setting.basic()))
    assert token not in shown
    assert setting.secret not in shown
    assert setting.secret not in repr(
        TokenRequest(query="", content_type=FORM, authorization=(setting.basic(),), body=GRANT)
    )


TEXT = st.text(max_size=30)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.binary(max_size=120)
    | st.lists(
        st.tuples(
            st.sampled_from(["grant_type", "scope", "client_id", "client_secret", "resource"]),
            st.sampled_from(["client_credentials", "inference", ""]) | TEXT,
        ),
        max_size=5,
    ).map(lambda pairs: "&".join(f"{n}={v}" for n, v in pairs).encode("utf-8", "replace")),
    authorization=st.lists(
        TEXT | st.binary(max_size=40).map(lambda raw: "Basic " + base64.b64encode(raw).decode()), max_size=2
    ),
    query=st.just("") | TEXT,
    content_type=st.just(FORM) | TEXT,
)
def test_no_request_gets_anything_but_an_oauth_error(setting, body, authorization, query, content_type):
    """Whatever is sent without the secret: a well-formed error, never an exception, never a token."""
    decision = setting.decide(body, authorization=authorization, query=query, content_type=content_type)
    answer = json.loads(decision.body)
    assert decision.minted is None
    assert answer["error"] in ("invalid_request", "invalid_client", "unsupported_grant_type")
    assert decision.status == (401 if answer["error"] == "invalid_client" else 400)
    assert all(" " <= character <= "~" and character not in '"\\' for character in answer.get("error_description", ""))


def test_a_client_that_fails_too_often_waits(clock):
    """A bucket: so many at once, then one each time it refills. Other clients at the address go on."""
    limit = FailureLimit(10, clock=clock)
    for _ in range(10):
        assert limit.retry_after_s("192.0.2.1", "a") == 0
        limit.count_failure("192.0.2.1", "a")
    assert limit.retry_after_s("192.0.2.1", "a") == 6
    assert limit.retry_after_s("192.0.2.1", "b") == 0
    assert limit.retry_after_s("192.0.2.2", "a") == 0
    clock.now += 6
    assert limit.retry_after_s("192.0.2.1", "a") == 0
    limit.count_failure("192.0.2.1", "a")
    assert limit.retry_after_s("192.0.2.1", "a") == 6
    clock.now += 1
    assert limit.take_suppressed() == [Suppressed("192.0.2.1", "a", 2, first_ago_ms=7_000, last_ago_ms=1_000)]
    assert limit.take_suppressed() == []


def test_an_address_that_goes_through_clients_waits_as_well(clock):
    """Ten times as many as one client may."""
    limit = FailureLimit(10, clock=clock)
    for number in range(100):
        assert limit.retry_after_s("192.0.2.1", f"client-{number}") == 0
        limit.count_failure("192.0.2.1", f"client-{number}")
    assert limit.retry_after_s("192.0.2.1", "another") == 1
    assert limit.retry_after_s("192.0.2.2", "another") == 0
    assert limit.take_suppressed() == [Suppressed("192.0.2.1", "", 1)]


def test_the_memory_of_sources_is_bounded_and_what_is_forgotten_is_counted(clock):
    """An attacker with many addresses costs a bounded amount of memory."""
    limit = FailureLimit(1, clock=clock, max_buckets=4)
    limit.count_failure("192.0.2.1", "a")
    assert limit.retry_after_s("192.0.2.1", "a") > 0
    clock.now += 1
    limit.count_failure("192.0.2.2", "a")
    assert limit.retry_after_s("192.0.2.2", "a") > 0
    clock.now += 1
    for number in range(3, 7):
        limit.count_failure(f"192.0.2.{number}", "a")
    assert limit.take_suppressed() == [Suppressed("*", "", 2, first_ago_ms=2_000, last_ago_ms=1_000)]
    assert limit.take_suppressed() == []
    assert len(limit._buckets) == 4


def test_sources_are_networks_of_one_machine():
    """An IPv6 host has 2^64 addresses; a mapped IPv4 address is that IPv4 address."""
    assert normalize_source("2001:db8::1") == normalize_source("2001:db8::ffff:2") == "2001:db8::/64"
    assert normalize_source("::ffff:192.0.2.1") == normalize_source("192.0.2.1") == "192.0.2.1"
    assert normalize_source("fe80::1%eth0") == "fe80::/64"
    assert normalize_source("not an address" * 20) == ("not an address" * 20)[:64]


@control("3.1.4", "3.1.5", "3.1.6", "3.3.9", "3.13.3", "AC-5", "AC-6", "AC-6(2)", "AU-9(4)", "IA-2(5)", "SC-2")
def test_roles_are_separate_accounts():
    """No role but user may infer; nobody is granted `public`; every scope has a role."""
    assert [role for role in Role if Scope.INFERENCE in GRANTABLE[role]] == [Role.USER]
    assert all(Scope.PUBLIC not in granted for granted in GRANTABLE.values())
    assert set().union(*GRANTABLE.values()) == set(Scope) - {Scope.PUBLIC}
    assert set(GRANTABLE) == set(Role)


@given(st.sets(st.sampled_from([scope for scope in Scope if scope is not Scope.PUBLIC]), min_size=1))
def test_scopes_survive_a_round_trip(scopes):
    """Formatting and parsing are inverse."""
    assert parse_scopes(format_scopes(frozenset(scopes))) == scopes


@given(st.text(max_size=20))
def test_no_text_is_a_scope_by_accident(text):
    """Nothing but the family escapes."""
    try:
        scopes = parse_scopes(text)
    except MalformedDocument:
        return
    assert {str(scope) for scope in scopes} == set(text.split(" "))
