"""The section `[audit]` of the configuration file: where the log's identity and its limits are set."""

from typing import Annotated

import msgspec

DEFAULT_ORIGIN = "casemate.internal/audit"


class AuditSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the auditor is told."""

    origin: Annotated[
        str,
        msgspec.Meta(
            description="Name of the log and of its key, in the form of a URL without scheme. It is signed into every "
            "checkpoint and cannot change during a log's life.",
            min_length=1,
            max_length=200,
            pattern=r"\A[!-*,-~]+\Z",
        ),
    ] = DEFAULT_ORIGIN
    witnesses: Annotated[
        tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=4096)], ...],
        msgspec.Meta(
            max_length=16,
            description="Public keys (vkeys) of the witnesses. Behind a space may stand where a witness listens "
            "(`https://10.1.2.3:8440`; an address, not a name): then it is asked without further ado; the others' word a "
            "person brings (`casemate audit cosign`). The auditor refuses to write a log that went back behind their word.",
        ),
    ] = ()
    witness_quorum: Annotated[
        int,
        msgspec.Meta(
            description="How many witnesses must have cosigned one checkpoint before their word is kept and counts.",
            ge=1,
            le=16,
        ),
    ] = 1
    witness_interval_s: Annotated[
        int, msgspec.Meta(description="Seconds between two rounds of asking the witnesses.", ge=1, le=86_400)
    ] = 30
    witness_ca_certificate: Annotated[
        Annotated[str, msgspec.Meta(min_length=1, max_length=4096)] | None,
        msgspec.Meta(
            extra={"path": True},
            description="Certificate authority of the witnesses' listeners; without one the machine's authorities.",
        ),
    ] = None
    witness_max_age_s: Annotated[
        int,
        msgspec.Meta(
            description="With no word of a witness for so long, in seconds, the operator is warned.",
            ge=1,
            le=366 * 86_400,
        ),
    ] = 86_400
    overseeing_tenant: Annotated[
        str,
        msgspec.Meta(
            description="Auditors of this tenant see every record by the API, and the log's tiles; those of any other tenant "
            "see the records of their own.",
            min_length=1,
            max_length=128,
        ),
    ] = "default"
    sealed_tenants: Annotated[
        tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=128)], ...],
        msgspec.Meta(
            max_length=256,
            description="Tenants whose prompts and answers are kept, sealed; `*` for all. Of a tenant that is not named nothing "
            "is kept.",
        ),
    ] = ()
    body_recipients: Annotated[
        tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=4096)], ...],
        msgspec.Meta(
            max_length=16,
            extra={"path": True},
            description="Files with the public keys (PEM; X25519, or P-256 where `fips` is asked) of the auditors who may open "
            "sealed bodies, and to whom each day's root of the keyed hashes is escrowed. The private keys never come to this host.",
        ),
    ] = ()
    body_retention_days: Annotated[
        int,
        msgspec.Meta(
            description="Days that sealed bodies can be opened and keyed hashes looked up. Then their keys are destroyed, unless a "
            "hold forbids it. What stands here at the first start counts, until auditor and administrator together decide "
            "otherwise (`casemate audit retention`). After stops of a day and more they are destroyed only when witnesses, or both "
            "(`casemate audit vouch-time`), say that the clock is right; the alarm in `/ready` tells.",
            ge=1,
            le=36_500,
        ),
    ] = 30
    mldsa_cosignature: Annotated[
        bool,
        msgspec.Meta(
            description="Checkpoints carry a cosignature by the log with a post-quantum key (ML-DSA-44) besides the Ed25519 "
            "signature. It makes a checkpoint, and each receipt, 3.3 kB longer."
        ),
    ] = False
    checkpoint_interval_ms: Annotated[
        int,
        msgspec.Meta(description="Least time between two signed checkpoints, in milliseconds.", ge=100, le=60_000),
    ] = 1_000
    reserve_bytes: Annotated[
        int,
        msgspec.Meta(
            description="Disk space kept allocated beside the log, given up when the disk is full so that the failure "
            "itself can be recorded; 256 empty files are, too, as a file system can run out of those (inodes). Appends are "
            "taken again when twice as much is free.",
            ge=64 * 1024,
            le=1 << 34,
        ),
    ] = 4 << 20
    space_warning_bytes: Annotated[
        int,
        msgspec.Meta(
            description="With less space than this on the log's disk, or fewer files (inodes) left than records of so many bytes "
            "take, the operator is warned, while records are still taken.",
            ge=0,
            le=1 << 50,
        ),
    ] = 1 << 30
    stranger_records_per_minute: Annotated[
        int,
        msgspec.Meta(
            description="Records of failed authentication in a minute, from all sources together; further ones are counted and "
            "told in one record. Strangers can so fill the disk by at most a few hundred kilobytes a minute.",
            ge=1,
            le=1_000_000,
        ),
    ] = 120
    token_records_per_minute: Annotated[
        int,
        msgspec.Meta(
            description="Access tokens that one client may be issued in a minute; further requests are refused, counted, "
            "and told in one record.",
            ge=1,
            le=1_000_000,
        ),
    ] = 600
    segment_bytes: Annotated[
        int,
        msgspec.Meta(
            description="Size of a file of the write-ahead log. It is filled with zeroes before, followed by the next when "
            "it is half full, and used again once a checkpoint covers it, so that the disk holds two or three of them.",
            ge=64 * 1024,
            le=1 << 30,
        ),
    ] = 32 << 20
    count_wait_ms: Annotated[
        int,
        msgspec.Meta(
            description="How long an outcome waits for the engine's own token counts before it is recorded without them.",
            ge=0,
            le=60_000,
        ),
    ] = 500
    receipts_kept: Annotated[
        int,
        msgspec.Meta(
            description="Number of latest requests whose receipts can be asked for by request id; older ones are found "
            "by index.",
            ge=1,
            le=10_000_000,
        ),
    ] = 20_000
