"""Redirect URIs: which are the same, and how an answer is put into one."""

from urllib.parse import urlencode, urlsplit


def is_same_redirect(given: str, registered: str) -> bool:
    """Equal as strings; on this machine's loopback with any port (RFC 8252 section 7.3)."""
    if given == registered:
        return True
    try:
        one, other = urlsplit(given), urlsplit(registered)
        is_local = other.scheme == "http" and other.hostname in ("127.0.0.1", "::1")
        without_port = (one.scheme, one.hostname, one.path, one.query, one.fragment, one.username)
        _ = one.port
    except ValueError:
        return False
    return is_local and without_port == (
        other.scheme,
        other.hostname,
        other.path,
        other.query,
        other.fragment,
        other.username,
    )


def build_location(redirect_uri: str, state: str | None, issuer: str, **parameters: str) -> str:
    """The redirect URI with an answer in its query (RFC 6749 section 4.1.2), and who gives it (RFC 9207)."""
    values = {**parameters, **({} if state is None else {"state": state}), "iss": issuer}
    return f"{redirect_uri}{'&' if '?' in redirect_uri else '?'}{urlencode(values)}"
