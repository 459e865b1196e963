"""Quotes: what a verifier takes, what it refuses, and what a software TPM and the tools of others say to ours."""

import dataclasses
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from security.errors import QuoteRejected, SecurityFault, TpmUnavailable
from security.tpm.attestation_key import key_digest
from security.tpm.quote import Quote, bound_data, parse_quote
from security.tpm.quoting import read_key, take_quote
from security.tpm.verification import verify_quote
from tests.support.soft_tpm import attested_bytes, good_quote, running_tpm, signed_quote

KEY = generate_private_key(SECP256R1())
DIGEST, NONCE = bytes(range(32)), b"a nonce of mine"
PCRS = {pcr: bytes([pcr]) * 32 for pcr in (0, 1, 7)}


def attested(**changes: int | bytes) -> Quote:
    """A quote whose attested bytes are other than a TPM's, and rightly signed."""
    return signed_quote(KEY, attested_bytes(bound_data(DIGEST, NONCE), PCRS, **changes), NONCE, PCRS)  # type: ignore[arg-type]


def test_good_quote_says_what_the_tpm_said() -> None:
    """Also after it was kept and read again."""
    quote = parse_quote(good_quote(KEY, DIGEST, NONCE, PCRS).encode())
    said = verify_quote(quote, KEY.public_key(), DIGEST, NONCE)
    assert (said.pcrs, said.clock_ms, said.reset_count, said.restart_count) == (PCRS, 90_061_000, 7, 2)
    assert said.is_clock_safe


@pytest.mark.parametrize(
    ("quote", "complaint"),
    [
        (good_quote(generate_private_key(SECP256R1()), DIGEST, NONCE, PCRS), "made by another TPM"),
        (good_quote(KEY, bytes(32), NONCE, PCRS), "another digest"),
        (good_quote(KEY, DIGEST, b"an older nonce", PCRS), "another nonce"),
        (attested(magic=0xFF544348), "no quote of a TPM"),
        (attested(kind=0x8017), "no quote of a TPM"),
        (attested(more=b"\0"), "too many"),
        (
            dataclasses.replace(good_quote(KEY, DIGEST, NONCE, PCRS), pcrs={**PCRS, 7: bytes(32)}),
            "not those that were signed",
        ),
        (dataclasses.replace(good_quote(KEY, DIGEST, NONCE, PCRS), pcrs={0: PCRS[0], 1: PCRS[1]}), "other PCRs"),
        (
            dataclasses.replace(good_quote(KEY, DIGEST, NONCE, PCRS), signature=b"\0\x18\0\x0c"),
            "something else than ECDSA",
        ),
        (dataclasses.replace(good_quote(KEY, DIGEST, NONCE, PCRS), attest=b""), "does not verify"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_quote_that_shows_something_else_is_refused(quote: Quote, complaint: str) -> None:
    """By another TPM, over another statement, an old one, no quote at all, values that were not signed."""
    with pytest.raises(QuoteRejected, match=complaint):
        verify_quote(quote, KEY.public_key(), DIGEST, NONCE)


@given(st.integers(0, 2000), st.integers(0, 7))
def test_no_bit_of_a_kept_quote_can_be_changed(position: int, bit: int) -> None:
    """It is refused as malformed, or it does not verify."""
    data = bytearray(good_quote(KEY, DIGEST, NONCE, PCRS).encode())
    data[position % len(data)] ^= 1 << bit
    with pytest.raises(QuoteRejected):
        verify_quote(parse_quote(bytes(data)), KEY.public_key(), DIGEST, NONCE)


@given(st.binary(max_size=300))
def test_nothing_but_our_family_escapes(data: bytes) -> None:
    """Whatever lies in the file."""
    for text in (
        data,
        b'{"type":"casemate.quote/1"' + data,
        good_quote(KEY, DIGEST, NONCE, PCRS).encode()[:-20] + data,
    ):
        with pytest.raises(SecurityFault):
            parse_quote(text)


def test_key_on_another_curve_is_refused() -> None:
    """A TPM was asked for P-256."""
    quote = dataclasses.replace(
        good_quote(KEY, DIGEST, NONCE, PCRS), key=generate_private_key(SECP384R1()).public_key()
    )
    with pytest.raises(QuoteRejected, match="P-256"):
        parse_quote(quote.encode())


def test_machine_without_a_tpm_says_so(tmp_path: Path) -> None:
    """No device; and a file that is none."""
    with pytest.raises(TpmUnavailable, match="No such file"):
        read_key(tmp_path / "tpmrm0")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(TpmUnavailable):
        read_key(tmp_path / "file")


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A software TPM."""
    with running_tpm(tmp_path_factory.mktemp("tpm")) as path:
        yield path


def test_key_is_the_same_each_time_and_quotes(device: Path) -> None:
    """More often than a TPM has room for keys: each is dropped again."""
    keys = {key_digest(read_key(device)) for _ in range(8)}
    assert len(keys) == 1
    quote = take_quote(device, DIGEST, NONCE, tuple(range(24)))
    assert key_digest(quote.key) in keys
    said = verify_quote(quote, read_key(device), DIGEST, NONCE)
    assert len(said.pcrs) == 24


def test_tpm_does_not_sign_what_was_not_asked(device: Path) -> None:
    """Another digest, another nonce."""
    quote = take_quote(device, DIGEST, NONCE, (0,))
    for digest, nonce in ((bytes(32), NONCE), (DIGEST, b"another nonce")):
        with pytest.raises(QuoteRejected):
            verify_quote(quote, quote.key, digest, nonce)


def test_tpm2_tools_verify_our_quotes(device: Path, tmp_path: Path) -> None:
    """An implementation by others, with its own idea of what was signed."""
    if shutil.which("tpm2_checkquote") is None:
        pytest.skip("tpm2-tools is not installed")
    quote = take_quote(device, DIGEST, NONCE, (0, 7))
    (tmp_path / "key.pem").write_bytes(quote.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    (tmp_path / "attest").write_bytes(quote.attest)
    (tmp_path / "signature").write_bytes(quote.signature)

    def check(bound: bytes) -> int:
        command = ["tpm2_checkquote", "-u", "key.pem", "-m", "attest", "-s", "signature", "-q", bound.hex()]
        environment = {**os.environ, "TPM2TOOLS_TCTI": "none"}
        return subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, env=environment).returncode

    assert check(bound_data(DIGEST, NONCE)) == 0
    assert check(bound_data(DIGEST, b"other")) != 0
