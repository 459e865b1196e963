"""W3C Trace Context (level 1): which trace a request belongs to, and our own span in it.

What a client sends is believed as a name only, and only in the one form of the specification; anything else begins a trace of our
own. `tracestate` is not read: nothing here continues it. The response says trace and span in `traceresponse` (level 2, section 3),
the audit record has the trace's id.
"""

import re
import secrets
from collections.abc import Iterable

import msgspec

_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_VERSION_00 = b"00-"
MAX_HEADER_BYTES = 256


class TraceContext(msgspec.Struct, frozen=True):
    """One request's place in a trace; ids in lower-case hexadecimal."""

    trace_id: str
    span_id: str
    """Ours."""
    parent_id: str = ""
    """The client's span, if it sent one."""
    is_sampled: bool = False
    """The client asks that the trace be recorded."""

    @property
    def traceresponse(self) -> bytes:
        """The response header's value."""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.is_sampled):02x}".encode()

    def child(self) -> "TraceContext":
        """A span below ours, of what goes on when the request is over."""
        return TraceContext(self.trace_id, secrets.token_hex(8), self.span_id, self.is_sampled)


def trace_of(headers: Iterable[tuple[bytes, bytes]]) -> TraceContext:
    """The trace that a request continues, or a new one."""
    own = secrets.token_hex(24)
    trace_id, span_id = own[:32], own[32:]
    values = [value for name, value in headers if name == b"traceparent"]
    # Section 3.2.2.5: a header that does not parse, or is repeated, is treated as if there was none.
    match = _TRACEPARENT.fullmatch(values[0]) if len(values) == 1 and len(values[0]) <= MAX_HEADER_BYTES else None
    if match is None or (values[0].startswith(_VERSION_00) and match.group(4)):
        return TraceContext(trace_id, span_id)
    theirs, parent_id = match.group(1).decode(), match.group(2).decode()
    if not theirs.strip("0") or not parent_id.strip("0"):
        return TraceContext(trace_id, span_id)
    return TraceContext(theirs, span_id, parent_id, bool(int(match.group(3), 16) & 1))
