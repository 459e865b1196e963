"""Entries: canonical JSON in a form so narrow that every encoder agrees on it to the byte.

RFC 8785 (JSON Canonicalization Scheme), restricted to objects, arrays, strings and integers: keys are ASCII, so that all
orders of sorting agree; integers lie within ±(2^53 - 1), so that all readers agree; fractions are strings; there is no true,
false or null. An event comes from a peer without the fields that only the auditor may set (`parse_event`); `complete_entry`
adds them.

What always holds: an entry that left this module is the canonical form of itself and at most 65,535 bytes long.
"""

import hashlib
from typing import Annotated, Any

import msgspec

from audit.errors import EntryTooLarge, MalformedEntry
from audit.tiles import MAX_ENTRY_BYTES

MAX_EVENT_BYTES = 60_000
"""Longest event taken from a peer; leaves room for what the auditor adds."""
MAX_INTEGER = 2**53 - 1
MAX_DEPTH = 16
CUT_ABOVE_BYTES = 1_200
"""Strings of at most this many bytes of UTF-8 are never cut."""
CUT_KEEP_BYTES = 1_024
RANDOM_BYTES = 16
OWN_METADATA = frozenset(("log_name", "logged_time", "reporter", "sequence", "uid"))
"""Members of `metadata` that the auditor sets, besides the event's `time`."""

Json = dict[str, Any]

_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder()


def _build_plain_decoder() -> "msgspec.json.Decoder[Json]":
    """A decoder that takes only the restricted form, in C, down to a depth that real events do not reach."""
    integer = Annotated[int, msgspec.Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
    value: Any = str | integer
    for _ in range(_PLAIN_DEPTH):
        value = str | integer | list[value] | dict[str, value]
    return msgspec.json.Decoder(dict[str, value])


_PLAIN_DEPTH = 8
_plain_decoder = _build_plain_decoder()


def encode_canonical(value: Json) -> bytes:
    """Encode in the restricted form.

    Raises: MalformedEntry when the value holds anything that the form has not.
    """
    try:
        data = _encoder.encode(value)
        # Not equal where something else became a list or a string: a tuple, bytes.
        if data.isascii() and _plain_decoder.decode(data) == value:
            return data
    except (TypeError, ValueError, msgspec.MsgspecError, RecursionError):
        pass  # Below it is said what is wrong; or it is only deep.
    _verify_restricted(value, 0)
    try:
        return _encoder.encode(value)
    except (UnicodeEncodeError, TypeError, ValueError, msgspec.MsgspecError) as error:
        raise MalformedEntry(f"entry: cannot be encoded: {error}") from error


def parse_canonical(data: bytes) -> Json:
    """Parse an untrusted entry or event of at most 65,535 bytes.

    Accepts the canonical form only: `encode_canonical` of the result gives `data`. So duplicate members, other orders,
    spaces, fractions and needless escapes are refused.
    Raises: MalformedEntry, EntryTooLarge.
    """
    if len(data) > MAX_ENTRY_BYTES:
        raise EntryTooLarge(f"entry: {len(data)} bytes, at most {MAX_ENTRY_BYTES} fit into a leaf")
    if data.isascii():
        try:
            plain = _plain_decoder.decode(data)
            if _encoder.encode(plain) == data:  # Then its keys are ASCII too: a key that is not would be escaped here.
                return plain
        except (msgspec.MsgspecError, RecursionError):
            pass  # Below it is said what is wrong; or it is only deep.
    value = _parse_object(data)
    if encode_canonical(value) != data:
        raise MalformedEntry("entry: is not in canonical form (RFC 8785)")
    return value


def parse_event(data: bytes) -> Json:
    """Parse an untrusted event of a peer.

    Its members hold what the restricted form has, in whatever order and with whatever spaces: the entry made of it is encoded anew,
    so that canonical form is the auditor's to give, not the peer's. Of a member that comes twice, the last is the event's.
    Raises: MalformedEntry, also when it says what only the auditor may say; EntryTooLarge.
    """
    if len(data) > MAX_ENTRY_BYTES:
        raise EntryTooLarge(f"event: {len(data)} bytes, at most {MAX_ENTRY_BYTES} fit into a leaf")
    event = _parse_plain(data)
    if event is None:
        event = _parse_object(data)
        _verify_restricted(event, 0)
    _verify_event(event)
    return event


def _parse_plain(data: bytes) -> Json | None:
    """What nearly all events are, in C: not deep, and ASCII without escapes of other characters, so that its keys are ASCII too."""
    if not data.isascii() or b"\\u" in data:
        return None
    try:
        return _plain_decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError):
        return None


def _parse_object(data: bytes) -> Json:
    try:
        value = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedEntry(f"entry: is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise MalformedEntry(f"entry: is a JSON {type(value).__name__}, expected an object")
    return value


def encode_event(event: Json, max_bytes: int = MAX_EVENT_BYTES) -> bytes:
    """Encode an event for sending to the auditor, cutting its longest strings where it is too long.

    The rule: while the event is longer than `max_bytes`, the longest string (of those, the first in canonical order) is
    replaced by its first 1,024 bytes, less what is left of a broken character, and
    `[cut: N bytes, sha256:HEX]` over the whole string in UTF-8. `metadata.untruncated_size` then says how long the event was.
    Raises: MalformedEntry, EntryTooLarge when even that does not suffice.
    """
    data = encode_canonical(event)
    return data if len(data) <= max_bytes else _cut_event(data, max_bytes)


def encode_awaited_event(event: Json, max_bytes: int = MAX_EVENT_BYTES) -> bytes:
    """The same for an event whose append is waited for, as a request waits for its intent: that it has the restricted form is for
    the auditor alone to look at, who refuses it otherwise, and the request ends with that.

    Raises: MalformedEntry, EntryTooLarge.
    """
    try:
        data = _encoder.encode(event)
    except (UnicodeEncodeError, TypeError, ValueError, msgspec.MsgspecError) as error:
        raise MalformedEntry(f"entry: cannot be encoded: {error}") from error
    return data if len(data) <= max_bytes else encode_event(event, max_bytes)


def _cut_event(data: bytes, max_bytes: int) -> bytes:
    cut: Json = _decoder.decode(data)
    metadata = cut.get("metadata")
    if isinstance(metadata, dict):
        metadata["untruncated_size"] = len(data)
    strings = sorted(_long_strings(cut), key=lambda found: -found[0])
    while len(data) > max_bytes:
        if not strings:
            raise EntryTooLarge(f"event: {len(data)} bytes with all long strings cut, at most {max_bytes} are taken")
        _, holder, key = strings.pop(0)
        holder[key] = cut_string(holder[key])
        data = encode_canonical(cut)
    return data


def cut_string(text: str) -> str:
    """The stated form of a string that was cut: its start, its length and its digest."""
    data = text.encode()
    kept = data[:CUT_KEEP_BYTES].decode("utf-8", "ignore")
    return f"{kept}[cut: {len(data)} bytes, sha256:{hashlib.sha256(data).hexdigest()}]"


def _verify_event(event: Json) -> None:
    """Check that an event leaves to the auditor what only the auditor may say.

    Raises: MalformedEntry.
    """
    if "time" in event:
        raise MalformedEntry("event: `time` is set by the auditor, never by the peer")
    metadata = event.get("metadata")
    if not isinstance(metadata, dict):
        raise MalformedEntry("event: `metadata` is missing or no object")
    if not OWN_METADATA.isdisjoint(metadata):
        name = min(OWN_METADATA & metadata.keys())
        raise MalformedEntry(f"event: `metadata.{name}` is set by the auditor, never by the peer")


def complete_entry(event: Json, *, index: int, time_ms: int, reporter: str, log_name: str, random: bytes) -> bytes:
    """The leaf: the event with index, time, reporter, name of the log and 128 random bits.

    The random bits keep a leaf hash from telling what the leaf holds to somebody who can guess the rest of it. They are
    `metadata.uid`, which identifies the event.

    Args:
        event: what `parse_event` gave, so that it need not be walked again; changed in place.
    Raises: EntryTooLarge.
    """
    assert len(random) == RANDOM_BYTES
    event["time"] = time_ms
    event["metadata"] |= {
        "log_name": log_name,
        "logged_time": time_ms,
        "reporter": {"name": reporter},
        "sequence": index,
        "uid": random.hex(),
    }
    data = _encoder.encode(event)
    if len(data) > MAX_ENTRY_BYTES:
        raise EntryTooLarge(f"entry: {len(data)} bytes, at most {MAX_ENTRY_BYTES} fit into a leaf")
    return data


class _EntryMetadata(msgspec.Struct, gc=False):
    sequence: int


class _EntryHead(msgspec.Struct, gc=False):
    metadata: _EntryMetadata


_head_decoder = msgspec.json.Decoder(_EntryHead)


def parse_sequence(entry: bytes) -> int:
    """The index that an entry says it has.

    Raises: MalformedEntry.
    """
    try:
        return _head_decoder.decode(entry).metadata.sequence
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedEntry(f"entry: has no readable `metadata.sequence`: {error}") from error


def _verify_restricted(value: object, depth: int) -> None:
    kind = type(value)
    if kind is str:
        return
    if kind is int:
        if not -MAX_INTEGER <= value <= MAX_INTEGER:  # type: ignore[operator]
            raise MalformedEntry("entry: an integer lies outside ±(2^53 - 1)")
    elif depth >= MAX_DEPTH:
        raise MalformedEntry(f"entry: is nested more than {MAX_DEPTH} deep")
    elif kind is dict:
        for key, member in value.items():  # type: ignore[attr-defined]
            if type(key) is not str or not key.isascii():
                raise MalformedEntry(f"entry: the member name {str(key)[:40]!r} is not ASCII text")
            _verify_restricted(member, depth + 1)
    elif kind is list:
        for member in value:  # type: ignore[attr-defined]
            _verify_restricted(member, depth + 1)
    else:
        raise MalformedEntry(f"entry: holds a {kind.__name__}; only objects, arrays, strings and integers are taken")


def _long_strings(value: Any) -> list[tuple[int, Any, Any]]:
    """Length in bytes, holder and key of every string that may be cut, in canonical order."""
    members = value.items() if isinstance(value, dict) else enumerate(value)
    found: list[tuple[int, Any, Any]] = []
    for key, member in sorted(members):
        if isinstance(member, str):
            if (length := len(member.encode())) > CUT_ABOVE_BYTES:
                found.append((length, value, key))
        elif isinstance(member, dict | list):
            found.extend(_long_strings(member))
    return found
