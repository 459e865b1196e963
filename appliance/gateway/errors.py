"""The errors that leave the gateway, and the one table that maps them to HTTP.

GatewayFault
├── Refused                    the client's doing; asking again the same way would not help
│   ├── Unauthenticated        no access token, or one that does not hold
│   │   ├── AmbiguousCredentials  more than one
│   │   └── Forbidden          a valid token without the scope
│   ├── NotFound  MethodNotAllowed
│   ├── BodyTimeout  BodyTooLarge  UnsupportedMedia
│   ├── BadRequest             body, parameter or prompt that cannot be served as asked
│   └── QuotaRefused           policy says no for now
│       └── NotAllowed         policy says no for good
├── Unavailable                ours; asking again may help
│   ├── Overloaded  Draining
│   ├── QueueFull              the engine's queue is: come back a little later
│   └── PeerUnavailable        engine, policy or auditor cannot be reached or does not answer
├── EngineFault                the engine ended this request by an error of its own
├── DeadlineExceeded           the request took longer than it may
├── InternalFault              a bug of ours
└── ClientGone                 nobody reads the answer any more: there is no response to map to
"""

from dataclasses import dataclass

import msgspec

from appliance.errors import ApplianceFault
from appliance.gateway.identity import Principal


class GatewayFault(ApplianceFault):
    """Whatever the gateway refuses. `code` is a stable word for programs, the message is for people."""

    def __init__(self, code: str, message: str, *, parameter: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.parameter = parameter
        self.headers: list[tuple[bytes, bytes]] = []


class Refused(GatewayFault):
    """The client's doing."""


class Unauthenticated(Refused):
    """No token, or one that does not hold (RFC 6750)."""

    def __init__(self, code: str, message: str, *challenges: str) -> None:
        super().__init__(code, message)
        self.headers = [(b"www-authenticate", challenge.encode()) for challenge in challenges]
        self.principal: Principal | None = None
        """Who it is, where the token is good and only does not suffice."""


class AmbiguousCredentials(Unauthenticated):
    """More than one token: 400 (RFC 6750, section 3.1)."""


class Forbidden(Unauthenticated):
    """A valid token that lacks the route's scope (RFC 6750, section 3.1), or whose holder may not do what it asks for."""


class NotFound(Refused):
    """No such route, model or record."""


class MethodNotAllowed(Refused):
    """The route exists for another method."""


class BodyTimeout(Refused):
    """The body did not arrive in time."""


class BodyTooLarge(Refused):
    """The body is over the limit."""


class UnsupportedMedia(Refused):
    """Not JSON, or compressed."""


class BadRequest(Refused):
    """A body, parameter or prompt that cannot be served as asked."""


class QuotaRefused(Refused):
    """Policy says no."""

    def __init__(self, code: str, message: str, retry_after_s: int) -> None:
        super().__init__(code, message)
        if retry_after_s > 0:
            self.headers = [(b"retry-after", str(retry_after_s).encode())]


class NotAllowed(QuotaRefused):
    """Policy does not let this client use this model, or do anything at all: waiting is no help."""


class Unavailable(GatewayFault):
    """Ours; asking again may help."""

    def __init__(self, code: str, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(code, message)
        self.headers = [(b"retry-after", str(retry_after_s).encode())]


class Overloaded(Unavailable):
    """More open requests than one worker serves."""


class QueueFull(Unavailable):
    """More requests wait for the engine than may. Clients know 429 as what to back off from."""


class Draining(Unavailable):
    """The appliance is stopping."""


class PeerUnavailable(Unavailable):
    """A process that the request needs is away."""


class EngineFault(GatewayFault):
    """The engine ended this request by an error of its own."""


class DeadlineExceeded(GatewayFault):
    """The request took longer than it may."""


class InternalFault(GatewayFault):
    """A bug of ours. The message tells nothing but where to look."""


class ClientGone(GatewayFault):
    """Nobody reads the answer any more. `code` says how: client_disconnected or client_stalled."""


@dataclass(frozen=True)
class Mapping:
    """Status and OpenAI's error type of one family."""

    status: int
    error_type: str


HTTP_OF: dict[type[GatewayFault], Mapping] = {
    Forbidden: Mapping(403, "permission_error"),
    AmbiguousCredentials: Mapping(400, "invalid_request_error"),
    Unauthenticated: Mapping(401, "authentication_error"),
    NotFound: Mapping(404, "not_found_error"),
    MethodNotAllowed: Mapping(405, "invalid_request_error"),
    BodyTimeout: Mapping(408, "invalid_request_error"),
    BodyTooLarge: Mapping(413, "invalid_request_error"),
    UnsupportedMedia: Mapping(415, "invalid_request_error"),
    BadRequest: Mapping(400, "invalid_request_error"),
    NotAllowed: Mapping(403, "permission_error"),
    QuotaRefused: Mapping(429, "rate_limit_error"),
    QueueFull: Mapping(429, "rate_limit_error"),
    Unavailable: Mapping(503, "service_unavailable"),
    EngineFault: Mapping(500, "server_error"),
    InternalFault: Mapping(500, "server_error"),
    DeadlineExceeded: Mapping(504, "timeout_error"),
    ClientGone: Mapping(499, "client_gone"),
}


def http_of(fault: GatewayFault) -> Mapping:
    """Status and type of a fault: its own entry, or that of the nearest family above it."""
    return next(HTTP_OF[family] for family in type(fault).__mro__ if family in HTTP_OF)


class ErrorDetail(msgspec.Struct, frozen=True):
    """OpenAI's error object."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(msgspec.Struct, frozen=True):
    """OpenAI's body of every response that is an error."""

    error: ErrorDetail


def error_body(fault: GatewayFault) -> ErrorBody:
    """The body that a client gets for a fault."""
    return ErrorBody(ErrorDetail(str(fault), http_of(fault).error_type, fault.parameter, fault.code))
