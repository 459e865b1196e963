"""Tickets, keyed hashes, and the signing key's file."""

import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from audit.errors import KeyUnusable, MalformedNote, TicketRejected
from audit.keyed_hash import KeyedHasher, day_of, root_context
from audit.signing_key import create_signer, load_signer, load_verifier_key
from audit.storage import Disk
from audit.ticket import encode_ticket, mint_ticket, new_ticket_key, verify_ticket
from tests.support.controls import control

TICKET = {
    "worker": 1, "request_id": 2, "index": 5, "model": "m", "prompt_digest": b"\x01" * 32, "token_limit": 10,
    "expires_at_ms": 1_000,
}  # fmt: skip


def test_a_ticket_holds_for_what_it_was_minted_for_until_it_expires() -> None:
    """Once expired by a millisecond it is refused."""
    key = new_ticket_key()
    mac = mint_ticket(key, **TICKET)  # type: ignore[arg-type]
    verify_ticket(key, mac, **TICKET, now_ms=999)  # type: ignore[arg-type]
    with pytest.raises(TicketRejected, match="expired"):
        verify_ticket(key, mac, **TICKET, now_ms=1_000)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("worker", 2),
        ("request_id", 3),
        ("index", 6),
        ("model", "n"),
        ("prompt_digest", b"\x02" * 32),
        ("token_limit", 11),
        ("expires_at_ms", 2_000),
        ("index", -1),
    ],
)
def test_a_ticket_holds_for_nothing_else(name: str, value: object) -> None:
    """Every field is under the MAC; what cannot be encoded is refused too."""
    key = new_ticket_key()
    mac = mint_ticket(key, **TICKET)  # type: ignore[arg-type]
    with pytest.raises(TicketRejected):
        verify_ticket(key, mac, **{**TICKET, name: value}, now_ms=0)  # type: ignore[arg-type]


def test_a_ticket_of_another_key_is_refused() -> None:
    """The key lives as long as the link."""
    mac = mint_ticket(new_ticket_key(), **TICKET)  # type: ignore[arg-type]
    with pytest.raises(TicketRejected):
        verify_ticket(new_ticket_key(), mac, **TICKET, now_ms=0)  # type: ignore[arg-type]


TICKETS = st.tuples(
    st.integers(0, 63), st.integers(0, 2**48 - 1), st.integers(0, 2**64 - 1),
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=10), st.binary(max_size=8),
    st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1),
)  # fmt: skip


@given(TICKETS, TICKETS)
def test_no_two_tickets_have_the_same_bytes(
    one: tuple[int, int, int, str, bytes, int, int], other: tuple[int, int, int, str, bytes, int, int]
) -> None:
    """Lengths stand before the fields, so nothing moves from one into the next."""
    assert (encode_ticket(*one) == encode_ticket(*other)) == (one == other)


@control("3.13.16", "AU-3(1)", "SC-28", "SI-12", "Article 12(2)")
def test_keyed_hashes_differ_by_purpose_tenant_and_day_and_name_their_key() -> None:
    """Equal texts of two tenants, days or purposes cannot be matched."""
    root, days = b"\x07" * 32, ("1970-01-01", "1970-01-02")
    assert (day_of(86_399_999), day_of(86_400_000)) == days
    found = [
        KeyedHasher(root, root_context("t", days[0])).hash("prompt", b"text"),
        KeyedHasher(root, root_context("t", days[0])).hash("answer", b"text"),
        KeyedHasher(root, root_context("u", days[0])).hash("prompt", b"text"),
        KeyedHasher(root, root_context("t", days[1])).hash("prompt", b"text"),
        KeyedHasher(b"\x08" * 32, root_context("t", days[0])).hash("prompt", b"text"),
    ]
    assert len({one.value for one in found}) == len({one.key_id for one in found}) == 5
    assert KeyedHasher(root, root_context("t", days[0])).hash("prompt", b"text") == found[0]
    assert found[3].key_id.startswith("prompt/1970-01-02/")


def test_keyed_hash_is_hmac_under_an_hkdf_key() -> None:
    """Derived again from RFC 5869 and RFC 2104 by hand."""
    import hmac
    import struct

    root = bytes(range(32))
    parts = (b"casemate keyed hash v1", b"prompt", "müller".encode(), b"2026-11-23")
    info = b"".join(struct.pack(">I", len(part)) + part for part in parts)
    okm = HKDFExpand(algorithm=SHA256(), length=40, info=info).derive(root)
    hashed = KeyedHasher(root, root_context("müller", "2026-11-23")).hash("prompt", b"text")
    assert hashed.value == hmac.new(okm[:32], b"text", "sha256").hexdigest()
    assert hashed.key_id == f"prompt/2026-11-23/{okm[32:].hex()}"


def test_a_root_of_the_wrong_length_is_refused() -> None:
    """32 bytes, no more and no fewer."""
    with pytest.raises(KeyUnusable, match="31"):
        KeyedHasher(b"x" * 31, root_context("t", "2026-11-23"))


@control("3.13.10", "SC-12")
def test_a_new_key_is_private_and_has_its_public_half_beside_it(tmp_path: Path) -> None:
    """The key's file is of mode 600; the vkey file is what verifiers take."""
    path = tmp_path / "log.key"
    signer = create_signer(path, "log.example", Disk())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_signer(path, "log.example").key == signer.key
    assert load_verifier_key(str(tmp_path / "log.vkey")) == signer.key == load_verifier_key(signer.key.encode())
    with pytest.raises(KeyUnusable, match="exists"):
        create_signer(path, "log.example", Disk())


def test_unusable_keys_are_named(tmp_path: Path) -> None:
    """Missing, readable by others, no PEM, of another kind: each error names the file."""
    path = tmp_path / "log.key"
    with pytest.raises(KeyUnusable, match=r"log\.key: cannot be read"):
        load_signer(path, "o")
    path.write_bytes(b"rubbish")
    path.chmod(0o644)
    with pytest.raises(KeyUnusable, match=r"log\.key: others may use it"):
        load_signer(path, "o")
    path.chmod(0o600)
    with pytest.raises(KeyUnusable, match=r"log\.key: is not"):
        load_signer(path, "o")
    path.write_bytes(generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(KeyUnusable, match="no Ed25519"):
        load_signer(path, "o")
    if os.geteuid() != 0:
        path.chmod(0)
        with pytest.raises(KeyUnusable, match="Permission"):
            load_signer(path, "o")


def test_a_vkey_that_is_none_is_refused(tmp_path: Path) -> None:
    """Text without a key, a missing file, a file of something else."""
    with pytest.raises(KeyUnusable):
        load_verifier_key(str(tmp_path / "missing"))
    with pytest.raises(MalformedNote):
        load_verifier_key("a+b+c")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(MalformedNote):
        load_verifier_key(str(tmp_path / "binary"))
