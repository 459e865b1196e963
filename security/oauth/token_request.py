"""The token endpoint's wire format: an untrusted form and an untrusted header, read strictly (RFC 6749 sections 2.3.1, 3.2).

authlib is handed only what passed here. It would take the last of two parameters of the same name and let an exception
escape from a Basic header that is not UTF-8.
"""

import base64
import binascii
from urllib.parse import parse_qsl, unquote_plus

import msgspec
from authlib.oauth2.rfc6749.errors import InvalidRequestError

from security.errors import MalformedDocument, TokenRejected
from security.oauth.jws import parse_jws

MAX_BODY_BYTES = 16 << 10
MAX_PARAMETERS = 32
MAX_HEADER_CHARS = 4096


ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
"""RFC 7523 section 2.2."""


class TokenRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What HTTP gives: nothing is checked yet."""

    query: str
    content_type: str
    authorization: tuple[str, ...]
    """Every Authorization header, so that a second one is seen."""
    body: bytes
    proofs: tuple[str, ...] = ()
    """Every DPoP header."""
    certificate: bytes | None = None
    """The client's certificate on this connection, DER."""
    address: str = ""
    """Where it came from."""
    port: int = 0
    method: str = "POST"
    path: str = "/token"

    def __repr__(self) -> str:
        return "TokenRequest(<hidden>)"


class Credentials(msgspec.Struct, frozen=True):
    """How a client says who it is; nothing is checked yet."""

    client_id: str
    secret: str
    """Or its assertion; empty where the client only names itself."""
    method: str
    """client_secret_basic, client_secret_post, private_key_jwt, or `named` for a public client or one known by its certificate."""

    def __repr__(self) -> str:
        return f"Credentials(client_id={self.client_id!r}, secret=<hidden>, method={self.method!r})"


class ParsedRequest(msgspec.Struct, frozen=True):
    """A form in which every parameter stands once."""

    parameters: dict[str, str]
    resources: tuple[str, ...]
    """RFC 8707 section 2: this may be repeated."""
    credentials: Credentials | None
    proofs: tuple[str, ...] = ()
    certificate: bytes | None = None
    path: str = "/token"
    address: str = ""
    port: int = 0
    audiences: tuple[str, ...] = ()
    """RFC 8693 section 2.1: and this, where tokens are exchanged."""
    has_repeated: bool = False
    """Of a query, whose fault is told to the application: one stood twice. None of it is in `parameters`."""

    def __repr__(self) -> str:
        return "ParsedRequest(<hidden>)"


def parse_token_request(request: TokenRequest) -> ParsedRequest:
    """Parse a request to the token endpoint. The size of the body is the caller's to bound, while it reads.

    Raises: InvalidRequestError (RFC 6749 section 5.2) for whatever is refused.
    """
    if request.query:
        # RFC 6749 section 2.3.1: credentials must not be in the URI, where proxies log them.
        raise InvalidRequestError("Parameters belong into the body")
    media_type = request.content_type.split(";", 1)[0].strip().lower()
    if media_type != "application/x-www-form-urlencoded":
        raise InvalidRequestError("Expected the content type application/x-www-form-urlencoded")
    pairs = parse_form(request.body)
    resources = tuple(value for name, value in pairs if name == "resource" and value)
    audiences = tuple(value for name, value in pairs if name == "audience" and value)
    single = [(name, value) for name, value in pairs if name not in ("resource", "audience")]
    names = [name for name, _value in single]
    if len(set(names)) != len(names):
        raise InvalidRequestError("A parameter occurs twice")
    # RFC 6749 section 3.2: a parameter without a value is as if it were omitted.
    parameters = {name: value for name, value in single if value}
    credentials = _find_credentials(request.authorization, parameters)
    return ParsedRequest(
        parameters,
        resources,
        credentials,
        request.proofs,
        request.certificate,
        request.path,
        request.address,
        request.port,
        audiences,
    )


def parse_form(body: bytes) -> list[tuple[str, str]]:
    """Names and values of a form, at most MAX_PARAMETERS. Raises: InvalidRequestError."""
    if len(body) > MAX_BODY_BYTES:
        raise InvalidRequestError("The body is too large")
    if not body:
        return []
    try:
        return parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )
    except ValueError:
        raise InvalidRequestError("The body is not a form in UTF-8") from None


def _find_credentials(authorization: tuple[str, ...], parameters: dict[str, str]) -> Credentials | None:
    """RFC 6749 section 2.3: a client MUST NOT use more than one authentication method in a request."""
    if len(authorization) > 1:
        raise InvalidRequestError("More than one Authorization header")
    client_id, secret = parameters.get("client_id"), parameters.get("client_secret")
    assertion = _find_assertion(parameters)
    if sum((bool(authorization), secret is not None, assertion is not None)) > 1:
        raise InvalidRequestError("More than one method of client authentication")
    if authorization:
        credentials = parse_basic(authorization[0])
    elif assertion is not None:
        credentials = assertion
    elif client_id is not None:
        method = "named" if secret is None else "client_secret_post"
        return Credentials(client_id, secret or "", method)
    else:
        return None
    if credentials is not None and client_id not in (None, credentials.client_id):
        raise InvalidRequestError("client_id differs from the credentials")
    return credentials


def _find_assertion(parameters: dict[str, str]) -> Credentials | None:
    """A client's assertion (RFC 7521 section 4.2); its claims only say whose key to look for."""
    assertion, kind = parameters.get("client_assertion"), parameters.get("client_assertion_type")
    if assertion is None and kind is None:
        return None
    if assertion is None or kind != ASSERTION_TYPE:
        raise InvalidRequestError("client_assertion needs client_assertion_type jwt-bearer")
    try:
        subject = parse_jws(assertion).payload().get("sub")
    except (MalformedDocument, TokenRejected):
        subject = None
    if not isinstance(subject, str) or not subject:
        return Credentials("", assertion, "private_key_jwt")
    return Credentials(subject, assertion, "private_key_jwt")


def parse_basic(header: str) -> Credentials | None:
    """The credentials of a Basic header (RFC 7617, the parts form-encoded as RFC 6749 section 2.3.1 says).

    Returns: None for any other scheme and for whatever is malformed; nothing escapes.
    """
    scheme, _, encoded = header.strip().partition(" ")
    if scheme.lower() != "basic" or len(header) > MAX_HEADER_CHARS:
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).decode("utf-8").partition(":")
        client_id, secret = unquote_plus(user, errors="strict"), unquote_plus(password, errors="strict")
    except (binascii.Error, ValueError):
        return None
    if not (colon and client_id and secret):
        return None
    return Credentials(client_id, secret, "client_secret_basic")
