"""Records as syslog messages for a collector: one message a record, framed by its length, in the order of the log.

Each carries the record's index and the log's name as structured data, so that a collector sees a gap or a repetition. The number
32473 is the one that RFC 5612 sets aside for documents: we have no enterprise number of our own. A text that is not ASCII stands
behind UTF-8's byte order mark.

Source: RFC 5424 (the message; 6.2.1 facility 13: log audit; 6.4 the mark), RFC 5425 section 4.3 (the frame).
"""

import datetime
import re

from audit.entry import Json
from audit.formats import encode_cef, flatten, number_of, parse_json

_FACILITY = 13
_SEVERITIES = {1: 6, 2: 5, 3: 4, 4: 3, 5: 2, 6: 1}
_MAX_TIME_MS = 253_402_300_799_999
"""The end of the year 9999, behind which RFC 3339 has no times."""
_MARK = b"\xef\xbb\xbf"
_UNPRINTABLE = re.compile(r"[^!-~]")


def encode_message(entry: bytes, origin: str, *, as_cef: bool = False) -> bytes:
    """One framed message: its length in octets, a space, the message.

    Args:
        entry: a record that was verified before.
        as_cef: the text is a CEF line, not the record's own JSON.
    """
    event = parse_json(entry)
    text = encode_cef(event) if as_cef else entry
    message = f"{_header(event, origin)} ".encode() + (b"" if text.isascii() else _MARK) + text
    return f"{len(message)} ".encode() + message


def _header(event: Json, origin: str) -> str:
    row = flatten(event)
    priority = 8 * _FACILITY + _SEVERITIES.get(number_of(event, "severity_id"), 6)
    time_ms = min(max(number_of(event, "time"), 0), _MAX_TIME_MS)
    moment = datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")
    host = _word(origin.partition("/")[0], 255)
    data = f'[casemate@32473 index="{row["index"]}" origin="{_value(origin)}" uid="{_value(str(row["uid"]))}"]'
    return (
        f"<{priority}>1 {moment}.{time_ms % 1000:03d}Z {host} casemate {_word(str(row['reporter']), 128)} "
        f"{_word(str(row['kind']), 32)} {data}"
    )


def _word(text: str, max_chars: int) -> str:
    return _UNPRINTABLE.sub("?", text)[:max_chars] or "-"


def _value(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")
