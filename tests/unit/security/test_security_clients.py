"""What may be in a client's definition."""

import pytest

from security.clients import ClientDefinition, verify_redirect_uri
from security.errors import ClientRejected


@pytest.mark.parametrize(
    "uri",
    [
        "https://app.example", "https://app.example/", "https://app.example:8443/back?a=b&c=%20", "http://127.0.0.1/cb",
        "http://[::1]:5/cb", "https://localhost/a;b=c",
    ],
)  # fmt: skip
def test_addresses_to_return_to(uri):
    """https anywhere, http on this machine."""
    verify_redirect_uri(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "http://app.example/", "https://", "https:///x", "https://a b/", "https://good@evil.example/", "https://a/#f", "ftp://a/",
        "https://a;script-src 'unsafe-inline'/", "https://a;b/", "https://a'/", "https://a\\b/", "javascript:alert(1)//https://a",
        "http://127.0.0.1.evil.example/", "http://127.0.0.1@evil.example/", "https://a:port/", "https://a/\n", "https://a/\u00e9",
    ],
)  # fmt: skip
def test_what_is_no_address_to_return_to(uri):
    """It goes into a Location and, up to the port, into a page's policy, where a semicolon begins another rule."""
    with pytest.raises(ClientRejected, match="redirect URI"):
        verify_redirect_uri(uri)


@pytest.mark.parametrize(
    "subject",
    ["dns:", "ip:", "CN=a\n", "", "billing.example", "CN=a, O=b", "cn=a", "CN=", "C=Germany", "dns:a\n", "CN"],
)
def test_a_subject_says_something(subject):
    """What no certificate could ever have is said when it is registered, not when nobody gets in."""
    with pytest.raises(ClientRejected, match="tls_subject"):
        ClientDefinition(name="c", auth_method="tls_client_auth", tls_subject=subject).verify()
