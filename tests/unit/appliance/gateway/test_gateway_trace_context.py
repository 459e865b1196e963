"""W3C Trace Context: what is taken from a client, and what is begun anew."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.gateway.trace_context import trace_of
from tests.support.controls import control

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@control("3.3.5", "AU-6(3)", "AU-6(5)", "AU-12(1)", "Article 12(2)")
def test_a_trace_is_continued_under_a_span_of_ours() -> None:
    """Ids and the sampled flag of the client's; the span is new, and the response says both."""
    trace = trace_of([(b"traceparent", f"00-{TRACE}-{PARENT}-01".encode())])
    assert (trace.trace_id, trace.parent_id, trace.is_sampled) == (TRACE, PARENT, True)
    assert trace.span_id not in (PARENT, "0" * 16)
    assert trace.traceresponse == f"00-{TRACE}-{trace.span_id}-01".encode()


def test_later_versions_are_read_as_far_as_they_are_known() -> None:
    """Section 3.2.1: more may follow there, but not in version 00."""
    assert trace_of([(b"traceparent", f"cc-{TRACE}-{PARENT}-01-later".encode())]).trace_id == TRACE
    assert trace_of([(b"traceparent", f"00-{TRACE}-{PARENT}-01-later".encode())]).trace_id != TRACE


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{PARENT}",
        f" 00-{TRACE}-{PARENT}-01",
        f"cc-{TRACE}-{PARENT}-01-" + "x" * 1000,
    ],
)
def test_anything_else_begins_a_trace_of_our_own(value: str) -> None:
    """As if there was no header."""
    trace = trace_of([(b"traceparent", value.encode())])
    assert (trace.parent_id, trace.is_sampled) == ("", False)
    assert trace.trace_id != TRACE
    assert len(trace.trace_id) == 32


def test_a_repeated_header_counts_for_nothing() -> None:
    """Two readers might take different ones."""
    header = (b"traceparent", f"00-{TRACE}-{PARENT}-01".encode())
    assert trace_of([header, header]).trace_id != TRACE


@given(st.binary(max_size=80))
def test_no_header_makes_it_raise(value: bytes) -> None:
    """And none gives anything but lower-case hexadecimal."""
    trace = trace_of([(b"traceparent", value)])
    assert bytes.fromhex(trace.trace_id + trace.span_id)
