"""The few fields of an entry that are needed to follow requests through the log, decoded without the rest."""

import msgspec

from audit.entry import Json
from audit.errors import MalformedEntry


class _Own(msgspec.Struct, gc=False):
    kind: str = ""
    request_uid: str = ""
    intent_index: int = -1
    scan_from: int = -1
    rules: str = ""


class _Unmapped(msgspec.Struct, gc=False):
    casemate: _Own = msgspec.field(default_factory=_Own)


class _User(msgspec.Struct, frozen=True, gc=False):
    uid: str = ""


class _Actor(msgspec.Struct, gc=False):
    app_uid: str = ""
    user: _User = _User()


class _Reporter(msgspec.Struct, gc=False):
    name: str = ""


class _Metadata(msgspec.Struct, gc=False):
    reporter: _Reporter = msgspec.field(default_factory=_Reporter)


class _Summarized(msgspec.Struct, gc=False):
    metadata: _Metadata
    unmapped: _Unmapped = msgspec.field(default_factory=_Unmapped)
    actor: _Actor = msgspec.field(default_factory=_Actor)


class _Name(msgspec.Struct, frozen=True, gc=False):
    ip: str = ""
    name: str = ""
    uid: str = ""


class _Acting(msgspec.Struct, frozen=True, gc=False):
    app_uid: str = ""
    user: _Name = _Name()


class _Product(msgspec.Struct, frozen=True, gc=False):
    version: str = ""


class _Described(msgspec.Struct, frozen=True, gc=False):
    product: _Product = _Product()
    reporter: _Name = _Name()
    tenant_uid: str = ""


class _Tokens(msgspec.Struct, frozen=True, gc=False):
    completion_tokens: int = 0
    prompt_tokens: int = 0


class _Readable(msgspec.Struct, frozen=True, gc=False):
    """The members by which people find and read records, in searches, exports and reports."""

    metadata: _Described
    unmapped: _Unmapped = msgspec.field(default_factory=_Unmapped)
    actor: _Acting = _Acting()
    ai_model: _Name = _Name()
    app: _Name = _Name()
    entity: _Name = _Name()
    message_context: _Tokens = _Tokens()
    severity_id: int = 0
    src_endpoint: _Name = _Name()
    status_code: str = ""
    status_id: int = 0
    trace: _Name = _Name()
    user: _Name = _Name()


class EntrySummary(msgspec.Struct, frozen=True, gc=False):
    """What an entry is about; absent texts are empty, absent numbers -1."""

    kind: str
    request_uid: str
    client_id: str
    subject: str
    reporter: str
    intent_index: int
    scan_from: int
    """In records of the auditor: every intent below this index has its outcome."""
    rules: str
    """In records of the auditor: digest of the retention and holds in force from then on."""


_decoder = msgspec.json.Decoder(_Summarized)


def summarize(entry: bytes) -> EntrySummary:
    """Summarize an entry.

    Raises: MalformedEntry.
    """
    try:
        found = _decoder.decode(entry)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedEntry(f"entry: {error}") from error
    own = found.unmapped.casemate
    return EntrySummary(
        own.kind,
        own.request_uid,
        found.actor.app_uid,
        found.actor.user.uid,
        found.metadata.reporter.name,
        own.intent_index,
        own.scan_from,
        own.rules,
    )


def verify_summarizable(event: Json) -> None:
    """Check that the entry made of this event can be summarized, and found and read by people as what it is.

    Without that a captured process could append records that no search by who or what finds.
    Raises: MalformedEntry.
    """
    try:
        msgspec.convert(event, _Readable)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise MalformedEntry(f"event: {error}") from error
