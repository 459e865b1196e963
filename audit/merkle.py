"""RFC 6962 Merkle trees: hashes, roots, inclusion and consistency proofs.

Pure functions over hashes; nothing here reads a file. Proofs are *built* from a function that gives the hash of a range of
leaves, so that the same code serves a list in memory and tiles on disk; they are *verified* from hashes alone.

What always holds: a range [start, end) asked of a `RangeHash` lies within the tree, and is a node of it.

Source: RFC 6962, section 2.1; the verification algorithms are RFC 9162, sections 2.1.3.2 and 2.1.4.2.
"""

import hashlib
from collections.abc import Callable, Sequence

from audit.errors import ProofRejected

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
MAX_PROOF_HASHES = 63
"""A tree of at most 2^63 leaves: no honest path is longer."""

RangeHash = Callable[[int, int], bytes]
"""Gives MTH(D[start:end]) of the tree that is proven about."""


def leaf_hash(entry: bytes) -> bytes:
    """Hash of a leaf: SHA-256(0x00 || entry)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node: SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def split_point(size: int) -> int:
    """Largest power of two smaller than `size`, which is at least 2."""
    return 1 << (size - 1).bit_length() - 1


def root_of(hashes: Sequence[bytes]) -> bytes:
    """Root over hashes of equally large perfect subtrees; the last of them alone may be smaller than the others.

    With leaf hashes this is MTH(D[n]). Pairing from the left and carrying an odd one up unchanged splits at the largest
    power of two at every node, as the recursive definition does.
    """
    if not hashes:
        return EMPTY_ROOT
    row = list(hashes)
    sha256 = hashlib.sha256
    while len(row) > 1:
        above = [sha256(b"\x01" + row[i] + row[i + 1]).digest() for i in range(0, len(row) - 1, 2)]
        if len(row) % 2:
            above.append(row[-1])
        row = above
    return row[0]


def inclusion_proof(index: int, size: int, range_hash: RangeHash) -> list[bytes]:
    """Path from leaf `index` to the root of the tree of `size` leaves, the leaf's sibling first (section 2.1.1)."""
    assert 0 <= index < size
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + split_point(end - start)
        if index < middle:
            path.append(range_hash(middle, end))
            end = middle
        else:
            path.append(range_hash(start, middle))
            start = middle
    return path[::-1]


def consistency_proof(old_size: int, size: int, range_hash: RangeHash) -> list[bytes]:
    """Proof that the tree of `old_size` leaves is a prefix of that of `size` leaves (section 2.1.2)."""
    assert 0 < old_size <= size
    proof: list[bytes] = []
    start, end = 0, size
    while end != old_size:
        middle = start + split_point(end - start)
        if old_size <= middle:
            proof.append(range_hash(middle, end))
            end = middle
        else:
            proof.append(range_hash(start, middle))
            start = middle
    if start > 0:
        proof.append(range_hash(start, end))
    return proof[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that `leaf`, a leaf hash, stands at `index` in the tree of `size` leaves with this root.

    Raises: ProofRejected.
    """
    _verify_lengths(f"inclusion proof of leaf {index} in {size}", (leaf, root, *proof))
    if not 0 <= index < size:
        raise ProofRejected(f"inclusion proof: index {index} lies outside a tree of {size} leaves")
    node, last, reached = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise ProofRejected(f"inclusion proof of leaf {index} in {size}: {len(proof)} hashes are too many")
        if node & 1 or node == last:
            reached = node_hash(sibling, reached)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            reached = node_hash(reached, sibling)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise ProofRejected(f"inclusion proof of leaf {index} in {size}: {len(proof)} hashes are too few")
    if reached != root:
        raise ProofRejected(f"inclusion proof of leaf {index} in {size} does not lead to the root")


def verify_consistency(old_size: int, size: int, proof: Sequence[bytes], old_root: bytes, root: bytes) -> None:
    """Check that the tree of `old_size` leaves with `old_root` is a prefix of the tree of `size` leaves with `root`.

    Nothing can be shown about the empty tree, which is a prefix of every tree: such a proof is refused.
    Raises: ProofRejected.
    """
    what = f"consistency proof from {old_size} to {size}"
    _verify_lengths(what, proof)
    if not 0 <= old_size <= size:
        raise ProofRejected(f"{what}: a log only grows")
    if old_size == size:
        if proof:
            raise ProofRejected(f"{what}: must be empty, has {len(proof)} hashes")
        if old_root != root:
            raise ProofRejected(f"{what}: two different roots for one size")
        if size == 0 and root != EMPTY_ROOT:
            raise ProofRejected(f"{what}: the root of the empty tree is wrong")
        return
    if old_size == 0:
        raise ProofRejected(f"{what}: nothing is shown by a proof from the empty tree")
    _verify_growth(old_size, size, list(proof), old_root, root, what)


def _verify_growth(old_size: int, size: int, proof: list[bytes], old_root: bytes, root: bytes, what: str) -> None:
    if old_size & (old_size - 1) == 0:
        proof.insert(0, old_root)
    if not proof:
        raise ProofRejected(f"{what}: is empty")
    node, last = old_size - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old_reached = reached = proof[0]
    for sibling in proof[1:]:
        if last == 0:
            raise ProofRejected(f"{what}: too many hashes")
        if node & 1 or node == last:
            old_reached, reached = node_hash(sibling, old_reached), node_hash(sibling, reached)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            reached = node_hash(reached, sibling)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise ProofRejected(f"{what}: too few hashes")
    if old_reached != old_root:
        raise ProofRejected(f"{what}: does not lead to the earlier root")
    if reached != root:
        raise ProofRejected(f"{what}: does not lead to the later root")


def _verify_lengths(what: str, hashes: Sequence[bytes]) -> None:
    if any(len(node) != HASH_BYTES for node in hashes):
        raise ProofRejected(f"{what}: a hash has not {HASH_BYTES} bytes")
