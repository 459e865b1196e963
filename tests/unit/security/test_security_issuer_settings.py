"""Where people from elsewhere land: settings that cannot be meant are refused, and nobody lands among others by default."""

from typing import Any

import pytest

from security.issuer_settings import UpstreamSettings

UPSTREAM: dict[str, Any] = {
    "name": "corp",
    "issuer": "https://id.example",
    "client_id": "casemate",
    "authorization_endpoint": "https://id.example/auth",
    "token_endpoint": "https://id.example/token",
    "jwks_url": "https://id.example/keys",
    "address": "10.8.0.2:443",
    "ca_certificate": "ca.pem",
}
TENANTS = {"Finance": "finance"}


@pytest.mark.parametrize(
    ("changes", "tenant"),
    [
        ({}, "default"),
        ({"tenant": "acme"}, "acme"),
        ({"tenants": TENANTS}, None),
        ({"tenants": TENANTS, "tenant_claim": "tid"}, None),
        ({"tenants": TENANTS, "tenant": "acme"}, "acme"),
    ],
)
def test_whoever_has_no_mapped_tenant_is_nobodys_where_tenants_are_told_apart(
    changes: dict[str, Any], tenant: str | None
) -> None:
    """`default` is for a provider of one tenant only: a stranger to the mapping must not land among others there."""
    assert UpstreamSettings(**UPSTREAM, **changes).fallback_tenant == tenant


def test_a_claim_that_tells_tenants_apart_needs_what_it_tells() -> None:
    """Otherwise everybody would silently be of one."""
    with pytest.raises(ValueError, match="expected tenants"):
        UpstreamSettings(**UPSTREAM, tenant_claim="tid")
