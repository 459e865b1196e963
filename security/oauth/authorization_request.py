"""The authorization request's wire format (RFC 6749 section 4.1.1): an untrusted query, read strictly, and its two kinds of
refusal.
"""

from urllib.parse import parse_qsl

from security.errors import SecurityFault
from security.oauth.token_request import ParsedRequest

MAX_QUERY_CHARS = 4096
MAX_STATE_CHARS = 1024


class UntrustedRequest(SecurityFault):
    """Client or redirect URI are not right: tell the person, never redirect."""


class RefusedRequest(SecurityFault):
    """Tell the application, at `location`."""

    def __init__(self, location: str) -> None:
        super().__init__("the authorization request was refused")
        self.location = location


def parse_query(query: str) -> ParsedRequest:
    """Parameters, each once but for `resource` (RFC 8707 section 2). Raises: UntrustedRequest."""
    if len(query) > MAX_QUERY_CHARS:
        raise UntrustedRequest("The request is too long.")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=32)
    except ValueError:
        raise UntrustedRequest("The request cannot be read.") from None
    names = [name for name, _ in pairs if name != "resource"]
    if len(set(names)) != len(names):
        raise UntrustedRequest("A parameter occurs twice.")
    parameters = {name: value for name, value in pairs if name != "resource" and value}
    resources = tuple(value for name, value in pairs if name == "resource" and value)
    return ParsedRequest(parameters, resources, None)
