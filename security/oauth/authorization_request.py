"""The authorization request (RFC 6749 section 4.1.1, RFC 7636, RFC 9207): an untrusted query, read strictly.
 Two kinds of refusal: while client or redirect URI are not known to be right, the person is told and nobody is redirected
(section 4.1.2.1); after that errors go to the application. PKCE with S256 is required of every client.
"""

import re
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec

from security.clients import Client
from security.errors import MalformedDocument, SecurityFault
from security.scopes import Scope, format_scopes, parse_scopes

MAX_QUERY_CHARS = 4096
MAX_STATE_CHARS = 1024
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")


class UntrustedRequest(SecurityFault):
    """Client or redirect URI are not right: tell the person, never redirect."""


class RefusedRequest(SecurityFault):
    """Tell the application, at `location`."""

    def __init__(self, location: str) -> None:
        super().__init__("the authorization request was refused")
        self.location = location


class AuthorizationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request that may be shown to a person."""

    client: Client
    redirect_uri: str
    redirect_uri_was_given: bool
    scopes: frozenset[Scope]
    state: str | None
    challenge: str
    key_thumbprint: str
    issuer: str

    @property
    def scope(self) -> str:
        """What the application asks for."""
        return format_scopes(self.scopes)

    def answer(self, **parameters: str) -> str:
        """Where to send the browser back, with these parameters."""
        return build_location(self.redirect_uri, self.state, self.issuer, **parameters)


def parse_query(query: str) -> dict[str, str]:
    """Parameters, each once but for `resource`, whose values are joined by spaces. Raises: UntrustedRequest."""
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
    if resources := [value for name, value in pairs if name == "resource" and value]:
        parameters["resource"] = " ".join(resources)
    return parameters


def parse_authorization(
    parameters: dict[str, str], client: Client | None, *, resource: str, issuer: str
) -> AuthorizationRequest:
    """Check a request.

    Args:
        client: the client of the id that the request names, if there is one.
    Raises: UntrustedRequest, RefusedRequest.
    """
    # (1) Who asks, and where the answer goes: until both are known nobody is redirected.
    if client is None or client.is_disabled or client.kind != "application" or not client.redirect_uris:
        raise UntrustedRequest("The application is not known.")
    given = parameters.get("redirect_uri")
    if given is None and len(client.redirect_uris) != 1:
        raise UntrustedRequest("The application did not say where to return to.")
    redirect_uri = given or client.redirect_uris[0]
    if not any(is_same_redirect(redirect_uri, registered) for registered in client.redirect_uris):
        raise UntrustedRequest("The address to return to is not registered.")
    state = parameters.get("state")

    def refuse(error: str) -> RefusedRequest:
        short = state if state is None or len(state) <= MAX_STATE_CHARS else None
        return RefusedRequest(build_location(redirect_uri, short, issuer, error=error))

    # (2) What it asks for.
    if parameters.get("response_type") is None or len(state or "") > MAX_STATE_CHARS:
        raise refuse("invalid_request")
    if parameters["response_type"] != "code":
        raise refuse("unsupported_response_type")
    if "request" in parameters or "request_uri" in parameters:
        raise refuse("request_not_supported" if "request" in parameters else "request_uri_not_supported")
    # (3) RFC 7636 section 4.4.1, and RFC 9700 section 2.1.1: never without, never plain.
    challenge = parameters.get("code_challenge", "")
    if parameters.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(challenge):
        raise refuse("invalid_request")
    thumbprint = parameters.get("dpop_jkt", "")
    if thumbprint and not _CHALLENGE.fullmatch(thumbprint):
        raise refuse("invalid_request")
    if any(one != resource for one in parameters.get("resource", resource).split(" ")):
        raise refuse("invalid_target")
    try:
        scopes = parse_scopes(parameters["scope"]) if "scope" in parameters else client.scopes
    except MalformedDocument:
        raise refuse("invalid_scope") from None
    if not scopes <= client.scopes:
        raise refuse("invalid_scope")
    return AuthorizationRequest(
        client=client,
        redirect_uri=redirect_uri,
        redirect_uri_was_given=given is not None,
        scopes=scopes,
        state=state,
        challenge=challenge,
        key_thumbprint=thumbprint,
        issuer=issuer,
    )


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
