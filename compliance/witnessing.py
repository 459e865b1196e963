"""The word of witnesses in a pack: what excludes that the log was cut off at its end or told anew, up to that word.

    log/cosigned               the log's checkpoint with the cosignatures of its witnesses, as it lay beside the log
    log/consistency.proof      that this tree is a prefix of the pack's: hashes in base64, a line each (RFC 6962, section 2.1.2)

Whoever verifies brings the witnesses' keys. Without them, or without such a word, a pack shows no more than that its records are in
the tree that the log signed.
"""

import base64
import binascii
from collections.abc import Iterable

from audit.checkpoint import Checkpoint, verify_checkpoint
from audit.cosignature import CosignerKey, verify_cosignatures
from audit.merkle import verify_consistency
from audit.note import VerifierKey
from audit.reader import LogReader
from compliance.errors import PackRejected

COSIGNED, CONSISTENCY = "log/cosigned", "log/consistency.proof"
MAX_CONSISTENCY_BYTES = 1 << 13


def write_witnesses_word(
    reader: LogReader, checkpoint: Checkpoint, key: VerifierKey, cosigned: bytes
) -> dict[str, bytes]:
    """The two files, where there is a word about this tree or one that it extends.

    Raises: SignatureRejected, MalformedNote where what lies beside the log is no checkpoint of it; LogCorrupted.
    """
    if not cosigned:
        return {}
    old = verify_checkpoint(cosigned, [key], key.name)
    if not 0 < old.size <= checkpoint.size:
        return {}
    proof = reader.prove_consistency(old.size, checkpoint.size)
    return {COSIGNED: cosigned, CONSISTENCY: b"".join(base64.b64encode(node) + b"\n" for node in proof)}


def verify_witnesses_word(
    cosigned: bytes, proof: bytes, checkpoint: Checkpoint, key: VerifierKey, witnesses: Iterable[CosignerKey]
) -> tuple[int, dict[str, int]]:
    """Verify that witnesses have cosigned a tree that the pack's extends.

    Returns: the size of that tree, and for each witness that cosigned it the time, in seconds since 1970.
    Raises: PackRejected, SignatureRejected, ProofRejected and other AuditRejected.
    """
    old = verify_checkpoint(cosigned, [key], key.name)
    try:
        nodes = [base64.b64decode(line, validate=True) for line in proof.split(b"\n")[:-1]]
    except binascii.Error as error:
        raise PackRejected(f"{CONSISTENCY}: is not base64") from error
    verify_consistency(old.size, checkpoint.size, nodes, old.root, checkpoint.root)
    return old.size, verify_cosignatures(cosigned, witnesses)
