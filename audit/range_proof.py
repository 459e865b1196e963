"""Range proofs: that a run of records is in a tree, by the hashes of the subtrees to both sides of it.

For records [start, end) of a tree of `size` leaves, the tree is walked from the root; a subtree that lies wholly outside is
one given hash, one that lies wholly inside is computed from the records, any other is split. The given hashes stand in the
order of the walk, at most 2 * 63 of them; for a run of one record they are an inclusion proof in another order.

Source: RFC 6962, section 2.1 (the tree); the proof is our own composition of its nodes.
"""

from collections.abc import Iterator, Sequence

from audit.errors import ProofRejected
from audit.merkle import HASH_BYTES, RangeHash, leaf_hash, node_hash, root_of, split_point

MAX_RANGE_HASHES = 126


def build_range_proof(start: int, end: int, size: int, range_hash: RangeHash) -> list[bytes]:
    """The hashes that `verify_range` needs."""
    assert 0 <= start < end <= size
    return [range_hash(low, high) for low, high in _outside(start, end, 0, size)]


def verify_range(leaves: Sequence[bytes], start: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that these leaf hashes stand at `start` and behind it in the tree of `size` leaves with this root.

    Raises: ProofRejected.
    """
    end = start + len(leaves)
    what = f"range proof of records {start} to {end - 1} in {size}"
    if not 0 <= start < end <= size:
        raise ProofRejected(f"{what}: is no range of the tree")
    if len(proof) != sum(1 for _ in _outside(start, end, 0, size)) or any(len(node) != HASH_BYTES for node in proof):
        raise ProofRejected(f"{what}: has another number of hashes than the range needs")
    if _root(leaves, start, iter(proof), 0, size) != root:
        raise ProofRejected(f"{what}: does not lead to the root")


def verify_records(entries: Sequence[bytes], start: int, size: int, root: bytes, range_hash: RangeHash) -> None:
    """Lead records that were read from a log's folder to a root that was verified, by the hashes that lie there too.

    Raises: ProofRejected where they are not those of the tree; LogCorrupted.
    """
    proof = build_range_proof(start, start + len(entries), size, range_hash)
    verify_range([leaf_hash(entry) for entry in entries], start, size, proof, root)


def _outside(start: int, end: int, low: int, high: int) -> Iterator[tuple[int, int]]:
    """The largest subtrees of [low, high) that lie wholly outside of [start, end), in order."""
    if end <= low or high <= start:
        yield low, high
    elif not (start <= low and high <= end):
        middle = low + split_point(high - low)
        yield from _outside(start, end, low, middle)
        yield from _outside(start, end, middle, high)


def _root(leaves: Sequence[bytes], start: int, proof: Iterator[bytes], low: int, high: int) -> bytes:
    end = start + len(leaves)
    if end <= low or high <= start:
        return next(proof)
    if start <= low and high <= end:
        return root_of(leaves[low - start : high - start])
    middle = low + split_point(high - low)
    left = _root(leaves, start, proof, low, middle)
    return node_hash(left, _root(leaves, start, proof, middle, high))
