"""Redirect URIs: which are the same, and how an answer is put into one."""

import re
from urllib.parse import urlencode

_LOOPBACK = re.compile(r"(http://(?:127\.0\.0\.1|\[::1\]))(?::[0-9]{1,5})?((?:[/?].*)?)", re.ASCII)
"""Not a parser of URLs: those drop line breaks and change case, and what they call equal need not be."""


def is_same_redirect(given: str, registered: str) -> bool:
    """Equal as strings; on this machine's loopback but for the port (RFC 8252 section 7.3)."""
    if given == registered:
        return True
    one, other = _LOOPBACK.fullmatch(given), _LOOPBACK.fullmatch(registered)
    return one is not None and other is not None and one.groups() == other.groups()


def build_location(redirect_uri: str, state: str | None, issuer: str, **parameters: str) -> str:
    """The redirect URI with an answer in its query (RFC 6749 section 4.1.2), and who gives it (RFC 9207)."""
    values = {**parameters, **({} if state is None else {"state": state}), "iss": issuer}
    return f"{redirect_uri}{'&' if '?' in redirect_uri else '?'}{urlencode(values)}"
