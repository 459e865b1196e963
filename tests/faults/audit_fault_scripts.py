"""What runs under strace besides the appends: a witness, the rotation of a key and of a log, sealed bodies and their rules.

`python -m tests.faults.audit_fault_scripts NAME HOME`; a line on standard output is what was promised to somebody.
"""

import os
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.append import LogWriter
from audit.checkpoint import Checkpoint
from audit.entry import encode_canonical
from audit.errors import AuditFault, NotDurable, StorageFailed
from audit.merkle import consistency_proof, leaf_hash, root_of
from audit.note import NoteSigner
from audit.rotation import finish_key, rotate_log, stage_key
from audit.signing_key import open_cosigners
from audit.witness import Witness, encode_request
from tests.faults.custody_script import run_custody, run_seal

ORIGIN = "log.example/faults"
NAME = "witness.example/w"
SIZES = (3, 9, 20)
LEAVES = [leaf_hash(b"%d" % i) for i in range(30)]
SIGNER = NoteSigner(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes(32)))


def make_request(old: int, size: int) -> bytes:
    """An add-checkpoint of a log of these leaves."""
    proof = consistency_proof(old, size, lambda low, high: root_of(LEAVES[low:high])) if 0 < old < size else []
    return encode_request(old, proof, SIGNER.sign(Checkpoint(ORIGIN, size, root_of(LEAVES[:size])).encode()))


def open_witness(home: Path) -> Witness:
    """The witness of these runs."""
    return Witness(
        home / "witness", open_cosigners(home / "witness", NAME, with_mldsa=False), [SIGNER.key], lambda: 5.0
    )


def say(word: str) -> None:
    """One line, at once."""
    os.write(1, f"{word}\n".encode())


def run_witness(home: Path) -> None:
    """Cosign a growing log."""
    witness = open_witness(home)
    say("open")
    old = 0
    for size in SIZES:
        try:
            answer = witness.add_checkpoint(make_request(old, size))
        except NotDurable:
            say("refused")
            continue
        if answer.status == 200:
            say(f"cosigned {size}")
            old = size


def prepare_log(home: Path) -> None:
    """A stopped log of ten records, whose next key has signed."""
    for staged in (False, True):
        if staged:
            stage_key(home / "log.key", ORIGIN)
        writer = LogWriter(home / "log", home / "log.key", origin=ORIGIN)
        writer.append([encode_canonical({"metadata": {"sequence": writer.next_index + i}}) for i in range(5)])
        writer.commit()
        writer.publish()
        writer.close()


def main() -> int:
    """Run one of them."""
    name, home = sys.argv[1], Path(sys.argv[2])
    say("start")
    try:
        match name:
            case "witness":
                run_witness(home)
            case "finish_key":
                finish_key(home / "log", home / "log.key", ORIGIN)
            case "rotate_log":
                rotate_log(home / "log", home / "log.key")
            case "custody":
                run_custody(home, say)
            case "seal":
                run_seal(home, say)
    except StorageFailed:
        return 3
    except (AuditFault, OSError):
        return 4
    say("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
