"""Signed notes, verifier keys and checkpoints: the specification's vectors, canonical form, and what is refused."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from audit.checkpoint import Checkpoint, parse_checkpoint, verify_checkpoint
from audit.errors import AuditRejected, MalformedCheckpoint, MalformedNote, SignatureRejected
from audit.merkle import EMPTY_ROOT
from audit.note import (
    NoteSigner,
    Signature,
    SignedNote,
    VerifierKey,
    encode_note,
    parse_note,
    parse_verifier_key,
    verify_note,
)

SPECIFIED_VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
SPECIFIED_NOTE = (
    "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n"
    "— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n"
).encode()


def signer(name: str = "log.example/one", seed: int = 1) -> NoteSigner:
    return NoteSigner(name, Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


def test_the_key_of_the_specification_is_parsed_and_encoded() -> None:
    """The vkey of the signed-note specification."""
    key = parse_verifier_key(SPECIFIED_VKEY)
    assert (key.name, key.key_id) == ("example.com/foo", 0x530D903A)
    assert key.encode() == SPECIFIED_VKEY


def test_the_note_of_the_specification_is_parsed_and_encoded() -> None:
    """The note of the specification, which has an empty line in its text."""
    note = parse_note(SPECIFIED_NOTE)
    assert note.text.endswith("\n\ned è subito sera.\n")
    assert [(s.name, len(s.value)) for s in note.signatures] == [("quasimodo.example/salvatore", 64)]
    assert encode_note(note) == SPECIFIED_NOTE


def test_a_signed_note_verifies_and_a_changed_one_does_not() -> None:
    """One character more in the text, and the signature is wrong."""
    ours = signer()
    data = ours.sign("hello\n")
    assert verify_note(data, [ours.key]).text == "hello\n"
    with pytest.raises(SignatureRejected, match=r"log\.example/one"):
        verify_note(data.replace(b"hello", b"hallo"), [ours.key])


def test_sixteen_signatures_are_taken_and_unknown_ones_ignored() -> None:
    """The specification's least number; names or ids alone do not make a key known."""
    ours = signer()
    strangers = [Signature(f"witness{i}.example", i, b"\x01" * 72) for i in range(15)]
    same_name = Signature(ours.key.name, ours.key.key_id ^ 1, b"\x02" * 64)
    own = parse_note(ours.sign("text\n")).signatures
    data = encode_note(SignedNote("text\n", (*strangers, same_name, *own)))
    assert verify_note(data, [ours.key]).signatures == own


def test_a_known_key_with_a_bad_signature_rejects_the_whole_note() -> None:
    """Even when another known key has signed well."""
    one, two = signer(), signer("log.example/two", 2)
    good = parse_note(one.sign("text\n")).signatures
    bad = Signature(two.key.name, two.key.key_id, b"\x00" * 64)
    with pytest.raises(SignatureRejected, match=r"log\.example/two"):
        verify_note(encode_note(SignedNote("text\n", (*good, bad))), [one.key, two.key])


def test_a_note_by_unknown_keys_only_is_refused() -> None:
    """There is no trust without a key."""
    said = r"no signature by other\.example\+[0-9a-f]{8}; it names log\.example/one\+[0-9a-f]{8}, \\xe9\+00000005$"
    stranger = Signature("\xe9", 5, b"\x01" * 72)
    note = encode_note(SignedNote("text\n", (*parse_note(signer().sign("text\n")).signatures, stranger)))
    with pytest.raises(SignatureRejected, match=said):
        verify_note(note, [signer("other.example", 3).key])
    with pytest.raises(SignatureRejected, match="none was given"):
        verify_note(signer().sign("text\n"), [])


GOOD_LINE = "— a.example AAAAAQE=\n"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text\n",
        b"text\n\n",
        f"text\n{GOOD_LINE}".encode(),
        f"text\n\n{GOOD_LINE}\n".encode(),
        f"text\n\n{GOOD_LINE[:-1]}".encode(),
        f"te\rxt\n\n{GOOD_LINE}".encode(),
        f"te\x00xt\n\n{GOOD_LINE}".encode(),
        f"te\txt\n\n{GOOD_LINE}".encode(),
        b"te\xffxt\n\n" + GOOD_LINE.encode(),
        b"text\n\n- a.example AAAAAQE=\n",
        "text\n\n— a+b AAAAAQE=\n".encode(),
        "text\n\n— a\u00a0b AAAAAQE=\n".encode(),
        "text\n\n—  AAAAAQE=\n".encode(),
        "text\n\n— a.example\n".encode(),
        "text\n\n— a.example AAAA\n".encode(),
        "text\n\n— a.example AAAAAQE\n".encode(),
        "text\n\n— a.example AAAAAQF=\n".encode(),
        "text\n\n— a.example  AAAAAQE=\n".encode(),
        f"text\n\n{GOOD_LINE * 101}".encode(),
        b"a" * (1 << 20) + b"\n\n" + GOOD_LINE.encode(),
    ],
)
def test_malformed_notes_are_refused(data: bytes) -> None:
    """Each breaks one rule of the format."""
    with pytest.raises(MalformedNote):
        parse_note(data)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "a b+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        SPECIFIED_VKEY.replace("530d903a", "530D903A"),
        SPECIFIED_VKEY.replace("530d903a", "530d903b"),
        SPECIFIED_VKEY[:-1],
        SPECIFIED_VKEY + "\n",
        "example.com/foo+530d903a+" + base64.b64encode(b"\x02" + bytes(32)).decode(),
        VerifierKey("example.com/foo", bytes(31)).encode(),
        VerifierKey("example.com/foo", bytes(33)).encode(),
    ],
)
def test_malformed_keys_are_refused(text: str) -> None:
    """Case of the id, the id itself, padding, type and trailing bytes all count."""
    with pytest.raises(MalformedNote):
        parse_verifier_key(text)


@given(st.text(alphabet=st.characters(min_codepoint=32, exclude_categories=["Cs"]) | st.just("\n"), max_size=200))
def test_round_trip(text: str) -> None:
    """Any text that a note may hold comes back."""
    ours = signer()
    data = ours.sign(f"{text}\n")
    assert verify_note(data, [ours.key]).text == f"{text}\n"
    assert encode_note(parse_note(data)) == data


@given(st.binary(max_size=300) | st.text(max_size=100).map(lambda t: f"{t}\n\n{GOOD_LINE}".encode("utf-8", "replace")))
def test_nothing_but_the_family_escapes(data: bytes) -> None:
    """Rubbish is refused by our errors, and what is taken is canonical."""
    try:
        assert encode_note(parse_note(data)) == data
    except AuditRejected:
        pass
    try:
        parse_verifier_key(data.decode("utf-8", "surrogateescape"))
    except AuditRejected:
        pass
    try:
        text = data.decode("utf-8", "surrogateescape")
        assert parse_checkpoint(text).encode() == text
    except AuditRejected:
        pass


ROOT = base64.b64encode(bytes(range(32))).decode()


def test_a_checkpoint_comes_back() -> None:
    """Origin, size and root."""
    text = f"example.com/behind-the-sofa\n20852163\n{ROOT}\n"
    checkpoint = parse_checkpoint(text)
    assert checkpoint == Checkpoint("example.com/behind-the-sofa", 20852163, bytes(range(32)))
    assert checkpoint.encode() == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"o\n1\n{ROOT}",
        f"o\n01\n{ROOT}\n",
        f"o\n+1\n{ROOT}\n",
        f"o\n-1\n{ROOT}\n",
        f"o\n١\n{ROOT}\n",
        f"o\n\n{ROOT}\n",
        f"\n1\n{ROOT}\n",
        f"o\n1\n{ROOT}\nextension\n",
        f"o\n1\n{ROOT}\n\n",
        f"o\n1\n{ROOT[:-1]}\n",
        f"o\n1\n{ROOT[:-2]}9=\n",
        f"o\n1\n{base64.b64encode(bytes(31)).decode()}\n",
        f"o\n1\n{base64.b64encode(bytes(33)).decode()}\n",
        f"o\n99999999999999999999\n{ROOT}\n",
        f"o\n0\n{ROOT}\n",
    ],
)
def test_malformed_checkpoints_are_refused(text: str) -> None:
    """Each breaks one rule; extension lines are refused too, as monitors could not audit them."""
    with pytest.raises(MalformedCheckpoint):
        parse_checkpoint(text)


def test_extension_lines_are_taken_where_they_may_be() -> None:
    """Kept as they are; an empty one, or one with a control character, is refused there too."""
    text = f"o\n1\n{ROOT}\nfirst line\nsecond\n"
    checkpoint = parse_checkpoint(text, may_extend=True)
    assert checkpoint.extensions == ("first line", "second")
    assert checkpoint.encode() == text
    for bad in (f"o\n1\n{ROOT}\n\nsecond\n", f"o\n1\n{ROOT}\na\tb\n", f"o\n1\n{ROOT}\nfirst"):
        with pytest.raises(MalformedCheckpoint):
            parse_checkpoint(bad, may_extend=True)


def test_a_checkpoint_of_another_log_is_refused() -> None:
    """The same key may sign for two logs; the origin tells them apart."""
    ours = signer("log.example/one")
    data = ours.sign(Checkpoint("log.example/other", 0, EMPTY_ROOT).encode())
    with pytest.raises(MalformedCheckpoint, match="other"):
        verify_checkpoint(data, [ours.key], "log.example/one")
