"""The authorization request's wire format (RFC 6749 section 4.1.1): an untrusted query, read strictly, and its two kinds of
refusal.
"""

from collections import Counter
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
    """Parameters, each once but for `resource` (RFC 8707 section 2).

    What stands twice is a fault of which the application hears (RFC 6749 section 4.1.2.1), unless by that nobody knows which
    application it is, or where it is to hear of it.
    Raises: UntrustedRequest.
    """
    if len(query) > MAX_QUERY_CHARS:
        raise UntrustedRequest("The request is too long.")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=32)
    except ValueError:
        raise UntrustedRequest("The request cannot be read.") from None
    counts = Counter(name for name, _ in pairs if name != "resource")
    repeated = {name for name, count in counts.items() if count > 1}
    if repeated & {"client_id", "redirect_uri"}:
        raise UntrustedRequest("A parameter occurs twice.")
    parameters = {name: value for name, value in pairs if name in counts and name not in repeated and value}
    resources = tuple(value for name, value in pairs if name == "resource" and value)
    return ParsedRequest(parameters, resources, None, has_repeated=bool(repeated))
