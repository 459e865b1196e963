"""How streams of the APIs differ on the wire: what frames an event, how a failure is told, and how a good stream ends."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from appliance.gateway.errors import GatewayFault, error_body
from appliance.gateway.sse import DONE, event, named_event


@dataclass(frozen=True)
class Dialect:
    """One API's."""

    event: Callable[[Any], bytes]
    fault: Callable[[GatewayFault], bytes]
    done: bytes
    """After the last event of a good stream."""


def _anthropic_fault(fault: GatewayFault) -> bytes:
    return named_event({"type": "error", "error": error_body(fault).error})


def _responses_fault(fault: GatewayFault) -> bytes:
    return named_event({"type": "error", "code": fault.code, "message": str(fault), "param": fault.parameter})


OPENAI = Dialect(event, lambda fault: event(error_body(fault)), DONE)
ANTHROPIC = Dialect(named_event, _anthropic_fault, b"")
RESPONSES = Dialect(named_event, _responses_fault, b"")
