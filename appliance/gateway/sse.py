"""Server-sent events (WHATWG HTML, section 9.2) as OpenAI's clients read them: `data:` lines of one JSON object each."""

from typing import Any

import msgspec

DONE = b"data: [DONE]\n\n"
_encoder = msgspec.json.Encoder()


def event(data: Any) -> bytes:
    """One event. JSON holds no line break, so one line is enough."""
    return b"data: " + _encoder.encode(data) + b"\n\n"


def named_event(data: dict[str, Any]) -> bytes:
    """One event that also has its type as its name."""
    return b"".join((b"event: ", data["type"].encode(), b"\ndata: ", _encoder.encode(data), b"\n\n"))


def comment(text: str) -> bytes:
    """A line that clients skip; ours carry what OpenAI's events have no place for."""
    assert "\n" not in text
    return b": " + text.encode() + b"\n\n"
