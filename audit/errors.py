"""The errors that leave `audit`, split by what the caller does next.

AuditFault
├── AuditRejected            untrusted input was refused
│   ├── MalformedEntry         not canonical JSON in the restricted form, or fields that the auditor sets itself
│   │   └── EntryTooLarge      longer than a leaf may be, even after the cut rule
│   ├── MalformedNote          not a signed note, or not a verifier key
│   │   └── MalformedCheckpoint  a signed note whose text is not a checkpoint
│   │       └── WrongEmptyRoot     of size 0, with another root than the empty tree's
│   ├── MalformedProof         not a tlog-proof or a receipt
│   ├── MalformedTile          a tile or an entry bundle of the wrong shape
│   ├── SignatureRejected      no trusted signature, or a trusted key with a bad one
│   ├── ProofRejected          the hashes do not lead to the root
│   ├── TicketRejected         a ticket whose MAC, key or time does not hold
│   ├── NotPermitted           this peer may not append this kind of event
│   ├── BodyRejected           a sealed body or share that does not open, or was changed
│   ├── GovernanceRefused      what one person, or this one, may not decide
│   ├── RotationRefused        a key or log that cannot be rotated as it is
│   ├── ExportRejected         an export is not whole, or not what its manifest says
│   └── LogCorrupted           the folder is not the log that was signed; says what and where
├── AuditUnavailable         try again
│   ├── NotDurable             the disk is full: these records were not written, others may be later
│   ├── StorageFailed          writing failed in a way that leaves the disk's state unknown: end, and recover from disk
│   └── EntryNotFound          the log does not hold this index (yet)
└── AuditMisconfigured       refuse to start
    ├── IndexUnusable          the search index cannot be used; it can be dropped
    ├── LogInUse               another auditor has the folder
    ├── KeyUnusable            the signing key cannot be read, or others can read it
    ├── ClockRejected          the clock is earlier than the log's last record
    └── StateMismatch          what is on disk does not match the last signed tree
"""


class AuditFault(Exception):
    """Whatever `audit` refuses. Messages name the thing, what was expected and what came, and hold no secret."""


class AuditRejected(AuditFault):
    """Untrusted input was refused."""


class MalformedEntry(AuditRejected):
    """Bytes that are not an entry in the one accepted form."""


class EntryTooLarge(MalformedEntry):
    """An entry that is longer than a leaf may be."""


class MalformedNote(AuditRejected):
    """Bytes that are not a signed note or a verifier key in canonical form."""


class MalformedCheckpoint(MalformedNote):
    """A note whose text is not a checkpoint in canonical form."""


class WrongEmptyRoot(MalformedCheckpoint):
    """A checkpoint of size 0 with another root than the empty tree's: no history at all has it."""


class MalformedProof(AuditRejected):
    """Bytes that are not a tlog-proof or a receipt in canonical form."""


class MalformedTile(AuditRejected):
    """A tile or an entry bundle of the wrong shape, or a path that names none."""


class SignatureRejected(AuditRejected):
    """No trusted key signed, or a trusted key's signature is wrong."""


class ProofRejected(AuditRejected):
    """A Merkle proof that does not lead to the root."""


class TicketRejected(AuditRejected):
    """A ticket that does not hold."""


class NotPermitted(AuditRejected):
    """A peer tried to append what its row in the table does not allow."""


class BodyRejected(AuditRejected):
    """A sealed body, an escrow or a share is another's, or was changed."""


class GovernanceRefused(AuditRejected):
    """A proposal that makes no sense, or a person who may not decide it."""


class RotationRefused(AuditRejected):
    """A key or a log is not in a state in which it can be rotated, or does not continue another."""


class ExportRejected(AuditRejected):
    """An export that is not whole, not what its manifest says, or not of the log."""


class LogCorrupted(AuditRejected):
    """The folder does not hold the log that was signed. The message says what, and where."""


class AuditUnavailable(AuditFault):
    """Not now; later it may work."""


class NotDurable(AuditUnavailable):
    """The records could not be made durable and were taken back; no index was given for them."""


class StorageFailed(AuditUnavailable):
    """What is on disk is unknown. The process MUST end without acknowledging anything, and recover from disk."""


class EntryNotFound(AuditUnavailable):
    """The log does not hold this index, or not yet under a checkpoint."""


class AuditMisconfigured(AuditFault):
    """The auditor refuses to start."""


class LogInUse(AuditMisconfigured):
    """Another process holds the folder's lock."""


class KeyUnusable(AuditMisconfigured):
    """The signing key cannot be used."""


class IndexUnusable(AuditMisconfigured):
    """The file of the search index is damaged, or something else. It holds nothing that the log has not."""


class ClockRejected(AuditMisconfigured):
    """The clock is earlier than what was recorded already."""


class StateMismatch(AuditMisconfigured):
    """The folder contradicts the last signed tree."""
