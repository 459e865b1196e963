"""What follows from the configuration: addresses, files, and a gateway's check that agrees with the authority."""

import asyncio
from types import SimpleNamespace

import msgspec
import pytest

from appliance.authority.addresses import certificate_names, issuer_of, local_address, resource_of
from appliance.authority.credentials import find_tls_identity, load_signing_keys, provision_tls
from appliance.authority.token_check import AuthorityTokenCheck, build_token_check, describe_resource
from appliance.console.settings import ConsoleSettings
from appliance.errors import StartRefused
from appliance.gateway.identity import Presented, Principal, TokenIssuerUnavailable, TokenRefused
from appliance.gateway.settings import GatewaySettings
from security.certificates import names_of
from security.errors import KeyUnusable, SecurityMisconfigured
from security.oauth.https_source import HttpsJwksSource
from security.oauth.key_ring import KeyRing
from security.oauth.resource import AccessTokenValidator
from security.settings import AdministrationSettings, AuthoritySettings, TlsSettings
from security.tls import load_certificates

ISSUER = "https://127.0.0.1:8444"
RESOURCE = "https://127.0.0.1:8443"


def presented(token):
    """A token as a request brings it."""
    return Presented(scheme="bearer", token=token, method="GET", path="/v1/models", address="192.0.2.1")


def configuration(path, *, gateway=None, authority=None, tls=None):
    """As much of a `Configuration` as is read here."""
    return SimpleNamespace(
        gateway=GatewaySettings(**(gateway or {})),
        authority=AuthoritySettings(**(authority or {})),
        administration=AdministrationSettings(),
        console=ConsoleSettings(),
        tls=TlsSettings(**(tls or {})),
        state_path=path,
        mode="development",
        issuers=(),
    )


def test_the_resource_names_all_servers_whose_tokens_it_takes(tmp_path):
    """RFC 9728 section 2: a client finds the company's provider as well as our own authority."""
    made = configuration(tmp_path)
    made.issuers = (
        SimpleNamespace(issuer="https://login.example/v2.0"),
        SimpleNamespace(issuer="http://fs.example/trust"),
    )
    assert describe_resource(made).authorization_servers == (ISSUER, "https://login.example/v2.0")


@pytest.mark.parametrize(
    ("host", "issuer"),
    [
        ("127.0.0.1", "https://127.0.0.1:8444"), ("0.0.0.0", "https://localhost:8444"), ("::", "https://localhost:8444"),
        ("::1", "https://[::1]:8444"), ("llm.example", "https://llm.example:8444"),
    ],
)  # fmt: skip
def test_the_issuer_is_the_address(tmp_path, host, issuer):
    """Unless it is configured, as it must be behind another name."""
    assert issuer_of(configuration(tmp_path, authority={"host": host})) == issuer
    assert (
        issuer_of(configuration(tmp_path, authority={"host": host, "issuer": "https://id.example"}))
        == "https://id.example"
    )


def test_the_resource_is_the_gateways_address(tmp_path):
    """Unless it is configured."""
    assert resource_of(configuration(tmp_path)) == RESOURCE
    assert resource_of(configuration(tmp_path, authority={"resource": "https://llm.example"})) == "https://llm.example"


def test_a_port_that_is_not_known_before_the_start_cannot_be_in_tokens(tmp_path):
    """The error names what to set."""
    with pytest.raises(StartRefused, match=r"authority\.port is 0: set authority\.issuer"):
        issuer_of(configuration(tmp_path, authority={"port": 0}))
    with pytest.raises(StartRefused, match=r"gateway\.port is 0: set authority\.resource"):
        resource_of(configuration(tmp_path, gateway={"port": 0}))


def test_the_certificate_bears_every_name_that_clients_may_use(tmp_path, monkeypatch):
    """Local names, configured hosts, extra names, this host's own; each once."""
    monkeypatch.setattr("socket.gethostname", lambda: "LLM-01")
    config = configuration(
        tmp_path,
        gateway={"host": "10.0.0.5"},
        authority={"host": "0.0.0.0", "issuer": "https://id.example:9"},
        tls={"extra_names": ("LLM.example", "10.0.0.5")},
    )
    names = certificate_names(config)
    assert set(names) == {"localhost", "127.0.0.1", "::1", "llm.example", "10.0.0.5", "id.example", "llm-01"}
    assert len(names) == len(set(names))
    assert names_of(load_certificates(provision_tls(config).certificate)[0]) == set(names)


def test_a_host_name_that_no_certificate_can_bear_is_left_out(tmp_path, monkeypatch):
    """It must not keep the appliance from starting."""
    for name in ("", "my_host!", "höst"):
        monkeypatch.setattr("socket.gethostname", lambda name=name: name)
        assert name not in certificate_names(configuration(tmp_path))


def test_a_configured_certificate_is_checked_and_used(tmp_path):
    """And no authority of our own is made beside it."""
    made = provision_tls(configuration(tmp_path / "other"))
    config = configuration(
        tmp_path / "state",
        tls={"certificate": str(made.certificate), "key": str(made.key), "ca_certificate": str(made.ca_certificate)},
    )
    assert provision_tls(config) == find_tls_identity(config) == made
    assert not (tmp_path / "state").exists()
    broken = configuration(
        tmp_path / "state", tls={"certificate": str(made.certificate), "key": str(tmp_path / "none.key")}
    )
    with pytest.raises(KeyUnusable, match=r"none\.key"):
        provision_tls(broken)


def test_files_lie_where_the_layout_says(tmp_path):
    """Below the state directory, private."""
    config = configuration(tmp_path)
    provision_tls(config)
    keys = load_signing_keys(config)
    names = {
        str(path.relative_to(tmp_path))
        for path in tmp_path.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
    assert names >= {
        "tls/ca.pem",
        "tls/ca.key",
        "tls/server.pem",
        "tls/server.key",
    }
    assert keys.current.path.parent == tmp_path / "authority" / "signing"
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "authority").rglob("*"))


def test_local_addresses():
    """Where this host reaches its own listener."""
    assert [local_address(host) for host in ("0.0.0.0", "::", "10.0.0.5")] == ["127.0.0.1", "::1", "10.0.0.5"]


async def test_the_gateways_check_believes_the_authority_and_nobody_else(house):
    """The whole way: token endpoint, published keys, validator, principal."""

    class Published:
        async def fetch(self):
            async with house.client() as client:
                return (await client.get("/jwks.json")).content

    ring = KeyRing(Published())
    check = AuthorityTokenCheck(ring, AccessTokenValidator(ring, issuer=ISSUER, audience=RESOURCE))
    await check.prepare()
    token = (await house.ask(scope="inference")).json()["access_token"]
    principal = await check(presented(token))
    assert msgspec.structs.asdict(principal) | {"token_id": "", "expires_at": 0} == msgspec.structs.asdict(
        Principal(
            client_id=house.issued.client.client_id,
            subject=house.issued.client.client_id,
            tenant="default",
            role="user",
            scopes=frozenset({"inference"}),
            issuer=ISSUER,
            key_id=house.keys.current.kid,
            token_id="",
            expires_at=0,
        )
    )
    assert {type(value) for value in (principal.role, *principal.scopes)} == {str}  # Records take no enumerations.
    with pytest.raises(TokenRefused):
        await check(presented(token[:-4] + "AAAA"))


async def test_an_authority_that_is_away_is_unavailable(tmp_path):
    """Nothing listens, and there is no certificate yet: later, not 401."""
    check = build_token_check(configuration(tmp_path, authority={"port": 1}))
    with pytest.raises(TokenIssuerUnavailable):
        await check.prepare()
    with pytest.raises(TokenIssuerUnavailable):
        await check(presented("eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJFUzI1NiIsImtpZCI6IngifQ.e30.AAAA"))


@pytest.mark.parametrize(
    "url",
    ["http://x/keys", "https:///keys", "https://u@x/keys", "https://x/keys?a=1", "https://x/#f", "file:///etc/passwd"],
)
def test_keys_come_over_https_from_a_plain_address(url):
    """Anything else is a mistake in the configuration."""
    with pytest.raises(SecurityMisconfigured):
        HttpsJwksSource(url, None)


def test_settings_refuse_issuers_that_are_not_https_origins():
    """A path or a slash at the end would put the well-known documents elsewhere."""
    import msgspec

    for issuer in ("http://a", "https://a/", "https://a/b", "https://a?x", "https://u@a", "https://", "a"):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({"issuer": issuer}, AuthoritySettings)
    assert msgspec.convert({"issuer": "https://a:1"}, AuthoritySettings).issuer == "https://a:1"
    assert asyncio.iscoroutinefunction(HttpsJwksSource.fetch)
