"""How the APIs differ on the wire: what frames an event of a stream, how a failure is told, and how a good stream ends."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from appliance.gateway.errors import ErrorBody, ErrorDetail, GatewayFault, error_body
from appliance.gateway.sse import DONE, event, named_event


@dataclass(frozen=True)
class Dialect:
    """One API's."""

    event: Callable[[Any], bytes]
    fault: Callable[[GatewayFault], bytes]
    done: bytes
    """After the last event of a good stream."""
    refusal: Callable[[GatewayFault, str], Any]
    """The whole body of an answer that is an error, by the fault and the request's id."""
    has_names: bool = True
    """Its events have names, so its clients read lines of several kinds."""
    request_id_header: bytes = b""
    """Under which name its clients look for the request's id, beside `x-request-id`."""


_ANTHROPIC_TYPES = {"server_error": "api_error", "service_unavailable": "overloaded_error"}
"""The types of errors that have another name there."""


def _anthropic_error(fault: GatewayFault) -> ErrorDetail:
    detail = error_body(fault).error
    return msgspec.structs.replace(detail, type=_ANTHROPIC_TYPES.get(detail.type, detail.type))


def _anthropic_fault(fault: GatewayFault) -> bytes:
    return named_event({"type": "error", "error": _anthropic_error(fault)})


def _anthropic_refusal(fault: GatewayFault, request_id: str) -> dict[str, Any]:
    return {"type": "error", "error": _anthropic_error(fault), "request_id": request_id}


def _refusal(fault: GatewayFault, _request_id: str) -> ErrorBody:
    return error_body(fault)


def responses_error(fault: GatewayFault, number: int) -> dict[str, Any]:
    """The event of a failure in a stream of so many events."""
    told = {"code": fault.code, "message": str(fault), "param": fault.parameter}
    return {"type": "error", "sequence_number": number, **told}


OPENAI = Dialect(event, lambda fault: event(error_body(fault)), DONE, _refusal, has_names=False)
ANTHROPIC = Dialect(named_event, _anthropic_fault, b"", _anthropic_refusal, request_id_header=b"request-id")
RESPONSES = Dialect(named_event, lambda fault: named_event(responses_error(fault, 0)), b"", _refusal)

MESSAGES_ROUTE = "/v1/messages"
COUNT_ROUTE = "/v1/messages/count_tokens"


def dialect_of(route: str) -> Dialect:
    """That of the answers which the gateway gives for an endpoint."""
    return ANTHROPIC if route in (MESSAGES_ROUTE, COUNT_ROUTE) else OPENAI
