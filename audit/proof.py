"""tlog-proofs: one text that shows, offline, that an entry is in the log.

A proof holds an index, the Merkle path and the signed checkpoint it leads to. It does not hold the entry: whoever verifies
brings it. The optional `extra` line is authenticated by nothing and believed for nothing.

Source: C2SP tlog-proof, version 1.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from audit.canonical_text import decode_base64, encode_base64, parse_decimal
from audit.checkpoint import Checkpoint, verify_checkpoint
from audit.errors import MalformedProof
from audit.merkle import HASH_BYTES, MAX_PROOF_HASHES, leaf_hash, verify_inclusion
from audit.note import MAX_NOTE_BYTES, VerifierKey

HEADER = "c2sp.org/tlog-proof@v1"
MAX_PROOF_BYTES = 2 * MAX_NOTE_BYTES


@dataclass(frozen=True, slots=True)
class TlogProof:
    """A parsed proof. Nothing about it may be believed before `verify_proof`."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    """The signed note, verbatim."""
    extra: bytes | None = None

    def encode(self) -> bytes:
        """The proof as text."""
        lines = [HEADER]
        if self.extra is not None:
            lines.append(f"extra {encode_base64(self.extra)}")
        lines.append(f"index {self.index}")
        lines.extend(encode_base64(node) for node in self.hashes)
        return ("\n".join(lines) + "\n\n").encode("ascii") + self.checkpoint


def parse_proof(data: bytes) -> TlogProof:
    """Parse an untrusted tlog-proof of at most MAX_PROOF_BYTES.

    Accepts the canonical form only: encoding the result gives `data`. The checkpoint is taken as it is.
    Raises: MalformedProof.
    """
    if len(data) > MAX_PROOF_BYTES:
        raise MalformedProof(f"proof: {len(data)} bytes, at most {MAX_PROOF_BYTES} are taken")
    head, blank, checkpoint = data.partition(b"\n\n")
    if not blank or not checkpoint:
        raise MalformedProof("proof: has no blank line with a checkpoint after it")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise MalformedProof("proof: is not ASCII before the checkpoint") from error
    if lines.pop(0) != HEADER:
        raise MalformedProof(f"proof: does not start with {HEADER}")
    extra = None
    if lines and lines[0].startswith("extra "):
        extra = decode_base64(lines.pop(0).removeprefix("extra "), "proof: the extra data", MalformedProof)
    if not lines or not lines[0].startswith("index "):
        raise MalformedProof("proof: the line with the index is missing")
    index = parse_decimal(lines.pop(0).removeprefix("index "), "proof: the index", MalformedProof)
    if len(lines) > MAX_PROOF_HASHES:
        raise MalformedProof(f"proof: {len(lines)} hashes, at most {MAX_PROOF_HASHES} are possible")
    hashes = tuple(decode_base64(line, "proof: a hash", MalformedProof) for line in lines)
    if any(len(node) != HASH_BYTES for node in hashes):
        raise MalformedProof(f"proof: a hash has not {HASH_BYTES} bytes")
    return TlogProof(index, hashes, checkpoint, extra)


def verify_proof(data: bytes, entry: bytes, keys: Iterable[VerifierKey], origin: str) -> tuple[int, Checkpoint]:
    """Verify that `entry` is in the log `origin`, whose checkpoints are signed by one of `keys`.

    Returns: the index of the entry, and the checkpoint under which it stands.
    Raises: MalformedProof, MalformedNote, SignatureRejected, ProofRejected.
    """
    proof = parse_proof(data)
    checkpoint = verify_checkpoint(proof.checkpoint, keys, origin)
    verify_inclusion(leaf_hash(entry), proof.index, checkpoint.size, proof.hashes, checkpoint.root)
    return proof.index, checkpoint
