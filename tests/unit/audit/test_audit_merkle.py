"""RFC 6962 trees against outside vectors and against the recursive definition, written down naively."""

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.errors import ProofRejected
from audit.frontier import Frontier, load_frontier
from audit.merkle import (
    EMPTY_ROOT,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from audit.tiles import TileId


def naive_root(leaves: list[bytes]) -> bytes:
    """MTH as section 2.1 defines it."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return node_hash(naive_root(leaves[:k]), naive_root(leaves[k:]))


def leaves_of(size: int) -> list[bytes]:
    return [leaf_hash(str(index).encode()) for index in range(size)]


def decode(text: str | None) -> bytes:
    return base64.b64decode(text or "")


def test_inclusion_vectors(vectors: Path) -> None:
    """Every case of transparency-dev/merkle: the good are taken, the bad refused."""
    cases = json.loads((vectors / "rfc6962" / "inclusion.json").read_text())
    assert len(cases) > 50
    for case in cases:
        proof = [decode(node) for node in case["proof"] or []]
        arguments = (decode(case["leafHash"]), case["leafIdx"], case["treeSize"], proof, decode(case["root"]))
        if case["wantErr"]:
            with pytest.raises(ProofRejected):
                verify_inclusion(*arguments)
        else:
            verify_inclusion(*arguments)


def test_consistency_vectors(vectors: Path) -> None:
    """Every case of transparency-dev/merkle: the good are taken, the bad refused."""
    cases = json.loads((vectors / "rfc6962" / "consistency.json").read_text())
    assert len(cases) > 50
    for case in cases:
        proof = [decode(node) for node in case["proof"] or []]
        arguments = (case["size1"], case["size2"], proof, decode(case["root1"]), decode(case["root2"]))
        if case["wantErr"]:
            with pytest.raises(ProofRejected):
                verify_consistency(*arguments)
        else:
            verify_consistency(*arguments)


def test_empty_root_is_the_hash_of_nothing() -> None:
    """Section 2.1: the hash of an empty list is the hash of an empty string."""
    assert root_of([]) == Frontier().root() == EMPTY_ROOT


@given(st.integers(1, 700))
def test_roots_agree_with_the_definition(size: int) -> None:
    """Pairing from the left, and folding the frontier, give the recursive root."""
    leaves = leaves_of(size)
    tree = Frontier()
    for leaf in leaves:
        tree.append(leaf)
    assert root_of(leaves) == tree.root() == naive_root(leaves)


@pytest.mark.parametrize("piece", [1, 255, 256, 257, 1_000])
def test_leaves_added_together_make_the_tiles_that_leaves_added_singly_make(piece: int) -> None:
    """However a log's records are spread over commits, its tiles, their order and its frontier are the same."""
    leaves = leaves_of(65_536 + 300)
    one_by_one, together = Frontier(), Frontier()
    expected: list[tuple[TileId, bytes]] = []
    found: list[tuple[TileId, bytes]] = []
    for leaf in leaves:
        one_by_one.append(leaf, lambda tile, data: expected.append((tile, data)))
    for start in range(0, len(leaves), piece):
        together.extend(leaves[start : start + piece], lambda tile, data: found.append((tile, data)))
    assert found == expected
    assert (found[-1][0], found[-2][0].level) == (TileId(0, 256), 1)
    assert (together.size, together.levels) == (one_by_one.size, one_by_one.levels)
    assert together.root() == root_of(leaves)


@given(st.data())
def test_proofs_verify_and_any_change_is_refused(data: st.DataObject) -> None:
    """Every path that is built verifies; with one bit, one hash, one number changed it does not."""
    size = data.draw(st.integers(1, 300))
    index = data.draw(st.integers(0, size - 1))
    leaves = leaves_of(size)
    root = naive_root(leaves)
    proof = inclusion_proof(index, size, lambda start, end: naive_root(leaves[start:end]))
    verify_inclusion(leaves[index], index, size, proof, root)
    with pytest.raises(ProofRejected):
        verify_inclusion(leaf_hash(b"another"), index, size, proof, root)
    with pytest.raises(ProofRejected):
        verify_inclusion(leaves[index], index, size, [*proof, root], root)
    if proof:
        with pytest.raises(ProofRejected):
            verify_inclusion(leaves[index], index, size, proof[:-1], root)
        with pytest.raises(ProofRejected):
            verify_inclusion(leaves[index], index ^ 1, size, proof, root)


@given(st.data())
def test_consistency_proofs_verify_and_show_nothing_else(data: st.DataObject) -> None:
    """A proof of growth verifies; for a tree with one other leaf in its old part it does not."""
    size = data.draw(st.integers(1, 300))
    old_size = data.draw(st.integers(1, size))
    leaves = leaves_of(size)
    proof = consistency_proof(old_size, size, lambda start, end: naive_root(leaves[start:end]))
    old_root, root = naive_root(leaves[:old_size]), naive_root(leaves)
    verify_consistency(old_size, size, proof, old_root, root)
    forged = [*leaves]
    forged[data.draw(st.integers(0, old_size - 1))] = leaf_hash(b"forged")
    with pytest.raises(ProofRejected):
        verify_consistency(old_size, size, proof, naive_root(forged[:old_size]), root)


@given(
    st.binary(min_size=32, max_size=32),
    st.integers(-(2**70), 2**70),
    st.integers(-(2**70), 2**70),
    st.lists(st.binary(min_size=32, max_size=32), max_size=70),
    st.binary(min_size=32, max_size=32),
)
def test_nothing_but_the_family_escapes(leaf: bytes, one: int, other: int, proof: list[bytes], root: bytes) -> None:
    """Proofs out of thin air are refused, whatever their numbers."""
    with pytest.raises(ProofRejected):
        verify_inclusion(leaf, one, other, proof, root)
    with pytest.raises(ProofRejected):
        verify_consistency(one, other, [*proof, root], leaf, root)


@given(st.integers(0, 70_000))
def test_a_frontier_is_loaded_from_its_partial_tiles(size: int) -> None:
    """What the partial tiles of a tree hold is all that is needed to go on."""
    tree = Frontier(size, [[bytes([level]) * 32] * ((size >> 8 * level) % 256) for level in range(3)])
    tiles = dict(tree.partial_tiles())

    def read(tile: TileId) -> bytes:
        return tiles[tile]

    assert load_frontier(size, read).root() == tree.root()
