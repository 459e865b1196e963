"""What happened in a period, counted from the records themselves, each of which is verified against the signed tree on the way.

One walk: a record is hashed as a leaf, decoded as far as it is counted, and forgotten; every 65,536 records their hashes
are checked against the root. So a million records take some ten seconds and few megabytes.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from audit.checkpoint import Checkpoint
from audit.merkle import leaf_hash
from audit.range_proof import build_range_proof, verify_range
from audit.reader import LogReader
from audit.tiles import TILE_WIDTH

_CHECKED_AT_ONCE = TILE_WIDTH * TILE_WIDTH
DAY_MS, HOUR_MS = 86_400_000, 3_600_000
DIFFERING_KEPT = 25
SILENCE_MS = 120_000
"""Twice the time within which a running appliance leaves a record."""
REFUSALS = frozenset(("token_rejected", "token_refused", "user_sign_in_failed", "inference_denied"))
RATIONED = ("token_issued", "token_refused", "token_rejected", "user_sign_in_failed")
"""Of these, what exceeds the ration of a minute is refused, and a number in `log_rationed`."""
FAULTS = frozenset(
    ("process_crashed", "log_full", "log_space_low", "log_clock_jumped", "log_time_unvouched", "log_quorum_missed",
     "log_history_disputed", "model_verification_failed", "egress_open", "segments_apply_failed", "notices_missing",
     "model_import_refused", "software_install_refused", "start_refused", "refresh_token_reused", "log_recovered")
)  # fmt: skip
CHANGES = frozenset(
    ("client_created", "client_enabled", "client_disabled", "client_secret_rotated", "client_changed", "user_created",
     "user_enabled", "user_disabled", "user_password_changed", "user_passkey_added", "user_password_reset", "role_granted",
     "role_approved", "role_refused", "key_created", "key_revoked", "limits_changed", "limits_removed", "role_models_changed",
     "grant_rule_changed", "definitions_restored", "key_rotated", "retention_changed", "hold_placed", "hold_lifted",
     "rules_proposed", "rules_refused", "log_rotation_agreed", "log_bodies_destroyed", "configuration_loaded",
     "model_imported", "model_approved", "model_promoted", "model_retired", "roles_installed", "software_installed",
     "software_switched", "software_rolled_back", "log_rotated", "log_time_vouched", "segments_applied", "state_backed_up")
)  # fmt: skip
_QUIET = frozenset(("inference_intent", "inference_outcome", "token_issued"))
"""Kinds of which there are many, and of which each is like the others."""

Progress = Callable[[int, int], None]


class _Named(msgspec.Struct, gc=False):
    name: str = ""
    uid: str = ""


class _Actor(msgspec.Struct, gc=False):
    app_uid: str = ""
    user: _Named = msgspec.field(default_factory=_Named)


class _Own(msgspec.Struct, gc=False):
    kind: str = ""
    num_times: int = 1
    result: str = ""
    token_issued: int = 0
    """This and the next three are of `log_rationed`: attempts that were counted, and left out one by one."""
    token_refused: int = 0
    token_rejected: int = 0
    user_sign_in_failed: int = 0


class _Unmapped(msgspec.Struct, gc=False):
    casemate: _Own = msgspec.field(default_factory=_Own)


class _Tokens(msgspec.Struct, gc=False):
    completion_tokens: int = 0
    prompt_tokens: int = 0


class _Record(msgspec.Struct, gc=False):
    time: int = 0
    status_id: int = 0
    status_code: str = ""
    unmapped: _Unmapped = msgspec.field(default_factory=_Unmapped)
    actor: _Actor = msgspec.field(default_factory=_Actor)
    ai_model: _Named = msgspec.field(default_factory=_Named)
    message_context: _Tokens = msgspec.field(default_factory=_Tokens)


_decoder = msgspec.json.Decoder(_Record)


@dataclass(slots=True)
class Bucket:
    """A stretch of time."""

    requests: int = 0
    failed: int = 0
    refused: int = 0
    changes: int = 0
    tokens: int = 0

    def add(self, other: "Bucket") -> None:
        """Take another stretch in."""
        self.requests += other.requests
        self.failed += other.failed
        self.refused += other.refused
        self.changes += other.changes
        self.tokens += other.tokens


@dataclass(slots=True)
class Activity:
    """What was counted."""

    start: int
    end: int
    """Behind the last index."""
    first_ms: int = 0
    last_ms: int = 0
    bucket_ms: int = DAY_MS
    kinds: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    clients: Counter[str] = field(default_factory=Counter)
    people: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    output_tokens: int = 0
    unreconciled: int = 0
    unreadable: int = 0
    silences: int = 0
    """How often more than SILENCE_MS passed between two records: while it runs, each minute leaves one."""
    silent_ms: int = 0
    """All these times together."""
    longest_silence: tuple[int, int] = (0, 0)
    """The times of the records before and behind it."""
    buckets: dict[int, Bucket] = field(default_factory=dict)
    newest: dict[str, deque[int]] = field(default_factory=dict)
    """The last indices of each kind, oldest first."""
    differing: deque[int] = field(default_factory=lambda: deque(maxlen=DIFFERING_KEPT))
    """Likewise of the minutes whose counts differed: among a kind of which there is one a minute they would be lost."""

    @property
    def num_records(self) -> int:
        """How many records there are."""
        return self.end - self.start

    def timeline(self) -> list[tuple[int, Bucket]]:
        """Every stretch from the first to the last, those without a record too."""
        if not self.buckets:
            return []
        first, last = min(self.buckets), max(self.buckets)
        return [(start, self.buckets.get(start, Bucket())) for start in range(first, last + 1, self.bucket_ms)]


def measure_activity(
    reader: LogReader,
    checkpoint: Checkpoint,
    start: int,
    end: int,
    *,
    bucket_ms: int = DAY_MS,
    kept_per_kind: int = 25,
    progress: Progress = lambda _done, _all: None,
) -> Activity:
    """Count, and verify that what was counted is in the signed tree.

    Args:
        checkpoint: whose signature was verified.
        kept_per_kind: how many of the newest indices of each kind are remembered.
    Raises: ProofRejected, LogCorrupted.
    """
    activity = Activity(start, end, bucket_ms=bucket_ms)
    size = checkpoint.size
    for low in range(start - start % _CHECKED_AT_ONCE, end, _CHECKED_AT_ONCE):
        first, behind = max(low, start), min(low + _CHECKED_AT_ONCE, end)
        leaves: list[bytes] = []
        for number in range(first // TILE_WIDTH, -(-behind // TILE_WIDTH)):
            base = number * TILE_WIDTH
            entries = reader.read_bundle(number, size)[max(0, first - base) : behind - base]
            leaves += map(leaf_hash, entries)
            count_entries(activity, entries, max(first, base), kept_per_kind)
        proof = build_range_proof(first, behind, size, lambda left, right: reader.range_hash(left, right, size))
        verify_range(leaves, first, size, proof, checkpoint.root)
        progress(behind - start, end - start)
    return activity


def count_entries(activity: Activity, entries: list[bytes], index: int, kept: int = 0) -> None:
    """Take up records that were verified, or will be. The loop of a million: plain locals, no calls but those that must be."""
    decode, kinds, buckets, newest = _decoder.decode, activity.kinds, activity.buckets, activity.newest
    bucket_ms = activity.bucket_ms
    for number, entry in enumerate(entries, index):
        try:
            record = decode(entry)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            activity.unreadable += 1
            continue
        own = record.unmapped.casemate
        kind = own.kind
        kinds[kind] += 1
        remembered = newest.get(kind)
        if remembered is None:
            remembered = newest[kind] = deque(maxlen=kept)
        remembered.append(number)
        if record.time - activity.last_ms > SILENCE_MS and activity.last_ms:
            _count_silence(activity, record.time)
        activity.last_ms = record.time
        activity.first_ms = activity.first_ms or record.time
        start = record.time - record.time % bucket_ms
        bucket = buckets.get(start)
        if bucket is None:
            bucket = buckets[start] = Bucket()
        if kind == "inference_outcome":
            _count_outcome(activity, bucket, record)
        elif kind not in _QUIET:
            _count_other(activity, bucket, record, kind, number)


def _count_silence(activity: Activity, time_ms: int) -> None:
    activity.silences += 1
    activity.silent_ms += time_ms - activity.last_ms
    longest = activity.longest_silence
    if time_ms - activity.last_ms > longest[1] - longest[0]:
        activity.longest_silence = (activity.last_ms, time_ms)


def _count_outcome(activity: Activity, bucket: Bucket, record: _Record) -> None:
    tokens = record.message_context
    bucket.requests += 1
    bucket.tokens += tokens.prompt_tokens + tokens.completion_tokens
    activity.prompt_tokens += tokens.prompt_tokens
    activity.output_tokens += tokens.completion_tokens
    activity.models[record.ai_model.name] += 1
    activity.clients[record.actor.app_uid] += 1
    if record.actor.user.uid != record.actor.app_uid:
        activity.people[record.actor.user.uid] += 1
    activity.outcomes[record.status_code or "none"] += 1
    if record.status_id != 1:
        bucket.failed += 1


def _count_other(activity: Activity, bucket: Bucket, record: _Record, kind: str, index: int) -> None:
    if kind in REFUSALS:
        times = record.unmapped.casemate.num_times
        bucket.refused += times
        activity.refusals[f"{kind}: {record.status_code}" if record.status_code else kind] += times
    elif kind == "log_rationed":
        for name in RATIONED:
            if times := getattr(record.unmapped.casemate, name):
                bucket.refused += times
                activity.refusals[f"{name}: beyond the ration"] += times
    elif kind in CHANGES:
        bucket.changes += 1
    elif kind == "log_reconciled" and record.unmapped.casemate.result == "differ":
        activity.unreconciled += 1
        activity.differing.append(index)
