"""Cosignatures: round trips of both kinds, the specification's own example, and what is refused."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from audit.checkpoint import Checkpoint
from audit.cosignature import (
    ED25519_COSIGNATURE,
    MLDSA44_COSIGNATURE,
    Cosigner,
    cosigned_message,
    parse_cosigner_key,
    verify_cosignatures,
)
from audit.errors import AuditRejected, MalformedNote, SignatureRejected
from audit.merkle import leaf_hash
from audit.note import Signature, SignedNote, encode_note, parse_note

TEXT = Checkpoint("example.com/behind-the-sofa", 20852163, leaf_hash(b"")).encode()
COSIGNERS = {
    "ed25519": Cosigner("w.example/1", Ed25519PrivateKey.from_private_bytes(bytes(range(32)))),
    "ml-dsa-44": Cosigner("w.example/2", MLDSA44PrivateKey.generate()),
}
KINDS = sorted(COSIGNERS)


def cosigned(kind: str, timestamp: int = 1_679_315_147, text: str = TEXT) -> bytes:
    """A checkpoint with one cosignature."""
    return encode_note(SignedNote(text, (COSIGNERS[kind].cosign(text, timestamp),)))


@pytest.mark.parametrize("kind", KINDS)
def test_cosignatures_hold_and_say_when(kind: str) -> None:
    """By the key, through its text form and back."""
    key = COSIGNERS[kind].key
    assert parse_cosigner_key(key.encode()) == key
    assert verify_cosignatures(cosigned(kind), [key]) == {key.name: 1_679_315_147}


@pytest.mark.parametrize("kind", KINDS)
def test_another_time_tree_or_key_does_not_hold(kind: str) -> None:
    """Everything that it says is signed."""
    key = COSIGNERS[kind].key
    signature = COSIGNERS[kind].cosign(TEXT, 5)
    later = Signature(signature.name, signature.key_id, (6).to_bytes(8, "big") + signature.value[8:])
    smaller = Checkpoint("example.com/behind-the-sofa", 20852162, leaf_hash(b"")).encode()
    for text, wrong in ((TEXT, later), (smaller, signature)):
        with pytest.raises(SignatureRejected):
            key.verify(text, wrong)


def test_the_message_of_an_ed25519_cosignature_is_as_the_specification_shows() -> None:
    """Two lines, then the whole note text."""
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    message = cosigned_message(ED25519_COSIGNATURE, "w", text, 1679315147)
    assert message == b"cosignature/v1\ntime 1679315147\n" + text.encode()


def test_the_message_of_an_ml_dsa_cosignature_is_laid_out_as_specified() -> None:
    """Label, name, time, origin, start, end, root."""
    root = leaf_hash(b"")
    message = cosigned_message(MLDSA44_COSIGNATURE, "w.example/2", TEXT, 7)
    origin = b"example.com/behind-the-sofa"
    assert message == (
        b"subtree/v1\n\0" + bytes([11]) + b"w.example/2" + (7).to_bytes(8, "big") + bytes([27]) + origin
        + bytes(8) + (20852163).to_bytes(8, "big") + root
    )  # fmt: skip


def test_the_specifications_example_has_the_form_of_a_cosignature() -> None:
    """Its line parses: eight bytes of time, 64 of signature."""
    line = (
        "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJs"
        "X3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
    )
    (signature,) = parse_note(f"{TEXT}\n{line}".encode()).signatures
    assert (int.from_bytes(signature.value[:8], "big"), len(signature.value)) == (1679315147, 72)


def test_strangers_are_ignored_and_a_known_key_that_fails_rejects_all() -> None:
    """Whatever else has signed."""
    one, two = COSIGNERS["ed25519"], COSIGNERS["ml-dsa-44"]
    bad = Signature(one.key.name, one.key.key_id, bytes(72))
    note = encode_note(SignedNote(TEXT, (bad, two.cosign(TEXT, 9))))
    assert verify_cosignatures(note, [two.key]) == {two.key.name: 9}
    with pytest.raises(SignatureRejected):
        verify_cosignatures(note, [one.key, two.key])


def test_a_cosignature_of_another_length_is_refused() -> None:
    """Not read beyond its end."""
    key = COSIGNERS["ed25519"].key
    for value in (bytes(5), bytes(71), bytes(73)):
        with pytest.raises(SignatureRejected, match="bytes"):
            key.verify(TEXT, Signature(key.name, key.key_id, value))
    with pytest.raises(SignatureRejected, match="impossible time"):
        key.verify(TEXT, Signature(key.name, key.key_id, b"\xff" * 72))


@pytest.mark.parametrize("kind", KINDS)
def test_vkeys_of_another_form_are_refused(kind: str) -> None:
    """One text only is a key's."""
    text = COSIGNERS[kind].key.encode()
    name, key_id, key = text.split("+", 2)
    for wrong in (text + "\n", f"{name}+{key_id}", f"{name}+00000000+{key}", f"x{text}", text[:-4] + "===="):
        with pytest.raises(MalformedNote):
            parse_cosigner_key(wrong)


@given(st.text(max_size=100))
def test_nothing_but_the_family_escapes(text: str) -> None:
    """Rubbish is refused by our errors."""
    try:
        parse_cosigner_key(text)
    except AuditRejected:
        pass
