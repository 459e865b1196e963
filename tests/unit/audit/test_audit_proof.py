"""tlog-proofs and receipts: round trips, what verifies, and what is refused."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from audit.checkpoint import Checkpoint
from audit.entry import encode_canonical
from audit.errors import AuditRejected, MalformedProof, ProofRejected, SignatureRejected
from audit.merkle import inclusion_proof, leaf_hash, root_of
from audit.note import NoteSigner
from audit.proof import TlogProof, parse_proof, verify_proof
from audit.receipt import AuditReceipt, ReceiptEntry, encode_receipt, parse_receipt, verify_receipt
from tests.support.controls import control

SIGNER = NoteSigner("log.example/one", Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))
ORIGIN = SIGNER.key.name


def prove(entries: list[bytes], index: int) -> bytes:
    """The proof of one of the entries, under a checkpoint over all."""
    leaves = [leaf_hash(entry) for entry in entries]
    hashes = inclusion_proof(index, len(leaves), lambda start, end: root_of(leaves[start:end]))
    note = SIGNER.sign(Checkpoint(ORIGIN, len(leaves), root_of(leaves)).encode())
    return TlogProof(index, tuple(hashes), note).encode()


ENTRIES = [str(index).encode() for index in range(11)]


def test_the_form_is_that_of_the_specification() -> None:
    """Header, index, hashes, an empty line, the checkpoint verbatim."""
    lines = prove(ENTRIES, 3).decode().split("\n")
    assert lines[:2] == ["c2sp.org/tlog-proof@v1", "index 3"]
    assert [len(base64.b64decode(line)) for line in lines[2:6]] == [32] * 4
    assert lines[6:9] == ["", ORIGIN, "11"]


def test_a_proof_of_the_only_entry_has_no_hashes() -> None:
    """Zero hash lines are a proof as well."""
    data = prove([b"alone"], 0)
    assert parse_proof(data).hashes == ()
    assert verify_proof(data, b"alone", [SIGNER.key], ORIGIN)[0] == 0


@control("AU-9(3)", "AU-10")
def test_a_proof_verifies_for_its_entry_only() -> None:
    """Another entry, another key, another log are refused."""
    data = prove(ENTRIES, 3)
    index, checkpoint = verify_proof(data, b"3", [SIGNER.key], ORIGIN)
    assert (index, checkpoint.size) == (3, 11)
    with pytest.raises(ProofRejected):
        verify_proof(data, b"4", [SIGNER.key], ORIGIN)
    stranger = NoteSigner(ORIGIN, Ed25519PrivateKey.generate())
    with pytest.raises(SignatureRejected):
        verify_proof(data, b"3", [stranger.key], ORIGIN)
    with pytest.raises(AuditRejected):
        verify_proof(data, b"3", [SIGNER.key], "log.example/two")


@given(
    st.integers(0, 2**63 - 1),
    st.lists(st.binary(min_size=32, max_size=32), max_size=63),
    st.none() | st.binary(max_size=50),
)
def test_round_trip(index: int, hashes: list[bytes], extra: bytes | None) -> None:
    """With and without extra data."""
    proof = TlogProof(index, tuple(hashes), b"anything\n", extra)
    assert parse_proof(proof.encode()) == proof


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"c2sp.org/tlog-proof@v2\nindex 0\n\nnote\n",
        b"c2sp.org/tlog-proof@v1\n\nnote\n",
        b"c2sp.org/tlog-proof@v1\nindex 00\n\nnote\n",
        b"c2sp.org/tlog-proof@v1\nindex -1\n\nnote\n",
        b"c2sp.org/tlog-proof@v1\nindex 0\nAAAA\n\nnote\n",
        b"c2sp.org/tlog-proof@v1\nindex 0\n\n",
        b"c2sp.org/tlog-proof@v1\nindex 0\nextra AAAA\n\nnote\n",
        b"c2sp.org/tlog-proof@v1\nextra AAA\nindex 0\n\nnote\n",
        b"c2sp.org/tlog-proof@v1\r\nindex 0\r\n\r\nnote\n",
        b"c2sp.org/tlog-proof@v1\nindex 0\n" + b"A" * 43 + b"=\n" * 64 + b"\nnote\n",
        b"c2sp.org/tlog-proof@v1\nindex 0\n" + (b"A" * 43 + b"=\n") * 64 + b"\nnote\n",
    ],
)
def test_malformed_proofs_are_refused(data: bytes) -> None:
    """Each breaks one rule of the format."""
    with pytest.raises(MalformedProof):
        parse_proof(data)


@given(st.binary(max_size=200) | st.binary(max_size=120).map(lambda b: b"c2sp.org/tlog-proof@v1\nindex 0\n" + b))
def test_nothing_but_the_family_escapes(data: bytes) -> None:
    """Rubbish is refused by our errors, and what is taken is canonical."""
    try:
        assert parse_proof(data).encode() == data
    except AuditRejected:
        pass
    for verify in (
        lambda: verify_proof(data, b"", [SIGNER.key], ORIGIN),
        lambda: verify_receipt(data, [SIGNER.key], ORIGIN),
    ):
        with pytest.raises(AuditRejected):
            verify()


def entry(index: int, kind: str, **own: object) -> bytes:
    return encode_canonical({"metadata": {"sequence": index}, "unmapped": {"casemate": {"kind": kind, **own}}})


LOG = [
    entry(0, "log_started"),
    entry(1, "inference_intent"),
    entry(2, "inference_outcome", intent_index=1),
    entry(3, "inference_outcome", intent_index=0),
    entry(4, "inference_late_count", intent_index=1),
]


def receipt_entry(index: int) -> ReceiptEntry:
    return ReceiptEntry(index=index, record=LOG[index].decode(), proof=prove(LOG, index).decode())


def receipt(intent: int, outcome: int | None) -> bytes:
    ended = None if outcome is None else receipt_entry(outcome)
    return encode_receipt(AuditReceipt(intent=receipt_entry(intent), outcome=ended, log_vkey=SIGNER.key.encode()))


@control("AU-9(3)", "AU-10")
def test_a_receipt_verifies_with_the_key_alone() -> None:
    """Both records, and that they belong together."""
    verified = verify_receipt(receipt(1, 2), [SIGNER.key], ORIGIN)
    assert verified.outcome is not None
    assert verified.outcome["unmapped"]["casemate"]["intent_index"] == 1
    assert verify_receipt(receipt(1, None), [SIGNER.key], ORIGIN).outcome is None


@pytest.mark.parametrize(("intent", "outcome"), [(0, 2), (1, 3), (2, 2), (1, 1)])
def test_records_that_do_not_belong_together_are_refused(intent: int, outcome: int) -> None:
    """Each record is in the log, but they are not one request's."""
    with pytest.raises(ProofRejected):
        verify_receipt(receipt(intent, outcome), [SIGNER.key], ORIGIN)


@pytest.mark.parametrize(("intent", "outcome"), [(0, None), (2, None), (1, 4)])
def test_a_record_of_another_kind_is_no_part_of_a_receipt(intent: int, outcome: int | None) -> None:
    """Though it is in the log, and names the intent: else any record would pass for a request, or for how it ended."""
    with pytest.raises(ProofRejected, match="expected 'inference_"):
        verify_receipt(receipt(intent, outcome), [SIGNER.key], ORIGIN)


def test_no_receipt_is_longer_than_its_parts_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read before anything of it is believed; and text that is no Unicode is refused by our error."""
    data = receipt(1, 2)
    monkeypatch.setattr("audit.receipt.MAX_RECEIPT_BYTES", len(data) - 1)
    with pytest.raises(MalformedProof, match="at most"):
        verify_receipt(data, [SIGNER.key], ORIGIN)
    monkeypatch.setattr("audit.receipt.MAX_RECEIPT_BYTES", len(data))
    verify_receipt(data, [SIGNER.key], ORIGIN)


def test_a_receipt_with_a_changed_record_is_refused() -> None:
    """One character of the record, or its index."""
    document = json.loads(receipt(1, 2))
    document["intent"]["record"] = document["intent"]["record"].replace("inference", "Inference")
    with pytest.raises(ProofRejected):
        verify_receipt(json.dumps(document).encode(), [SIGNER.key], ORIGIN)
    document = json.loads(receipt(1, 2))
    document["intent"]["index"] = 2
    with pytest.raises(ProofRejected, match="proven at 1"):
        verify_receipt(json.dumps(document).encode(), [SIGNER.key], ORIGIN)


def test_receipts_come_back() -> None:
    """What was encoded is parsed."""
    assert parse_receipt(receipt(1, 2)).intent.index == 1
