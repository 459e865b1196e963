"""A software TPM (Debian's swtpm) behind a socket, for as long as a test needs it; and attested bytes as a TPM would make them."""

import hashlib
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from security.tpm.quote import Quote, bound_data
from security.tpm.wire import ALG_ECDSA, ALG_SHA256, encode_selection, sized, u8, u16, u32

MAGIC, ATTEST_QUOTE = 0xFF544347, 0x8018


@contextmanager
def running_tpm(folder: Path) -> Iterator[Path]:
    """A TPM that was just manufactured; gives its socket. Skips the test where swtpm is not installed."""
    if shutil.which("swtpm") is None:
        pytest.skip("swtpm is not installed")
    device = folder / "tpm"
    command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder}", "--flags", "not-need-init,startup-clear"]
    command += ["--server", f"type=unixio,path={device}", "--ctrl", f"type=unixio,path={device}.ctrl"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + 60
            while not device.exists():
                assert process.poll() is None, process.stderr.read() if process.stderr else ""
                assert time.monotonic() < deadline, "swtpm did not come up"
                time.sleep(0.01)
            yield device
        finally:
            process.terminate()


def attested_bytes(
    bound: bytes, pcrs: Mapping[int, bytes], *, magic: int = MAGIC, kind: int = ATTEST_QUOTE, more: bytes = b""
) -> bytes:
    """A TPMS_ATTEST of a quote, and whatever else somebody would like to have signed."""
    values = hashlib.sha256(b"".join(pcrs[pcr] for pcr in sorted(pcrs))).digest()
    clock = (90_061_000).to_bytes(8, "big") + u32(7) + u32(2) + u8(1)
    head = u32(magic) + u16(kind) + sized(b"\x00\x0b" + bytes(32)) + sized(bound)
    return head + clock + (1).to_bytes(8, "big") + encode_selection(tuple(sorted(pcrs))) + sized(values) + more


def signed_quote(key: EllipticCurvePrivateKey, attest: bytes, nonce: bytes, pcrs: Mapping[int, bytes]) -> Quote:
    """A quote that is signed with a key in our hands."""
    r, s = decode_dss_signature(key.sign(attest, ECDSA(SHA256())))
    signature = u16(ALG_ECDSA) + u16(ALG_SHA256) + sized(r.to_bytes(32, "big")) + sized(s.to_bytes(32, "big"))
    return Quote(key.public_key(), nonce, attest, signature, pcrs)


def good_quote(key: EllipticCurvePrivateKey, digest: bytes, nonce: bytes, pcrs: Mapping[int, bytes]) -> Quote:
    """As a TPM would have made it."""
    return signed_quote(key, attested_bytes(bound_data(digest, nonce), pcrs), nonce, pcrs)
