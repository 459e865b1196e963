"""`fips = true`: whether the cryptography that is really in use runs in its FIPS-approved mode. Nothing here makes it so.

A process holds two modules: the OpenSSL that Python's `ssl` and `hashlib` are linked with, and the one that `cryptography` brings
along. Both must say that they are in approved mode. The wheels of the package index bundle an OpenSSL without a FIPS provider, so
with them the answer is no, and the start is refused: `cryptography` has to be built against the system's validated module.

Reporting the mode is all that a module can do at run time: whether its certificate covers this version on this system is for
people to check. Sources: FIPS 140-3; FIPS 186-5; SP 800-131A.
"""

import _hashlib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.backends.openssl.backend import backend

from security.errors import FipsUnavailable

APPROVED_TOKEN_ALGORITHMS = ("ES256", "PS256", "RS256")
"""Ed25519 is in FIPS 186-5, and in few modules' certificates so far: it is not on our list."""


@dataclass(frozen=True, slots=True)
class CryptoModule:
    """A cryptographic module of this process."""

    name: str
    version: str
    is_approved: bool
    """It says that it is in approved mode."""


def find_modules() -> tuple[CryptoModule, ...]:
    """What this process would use."""
    return (
        CryptoModule("Python's ssl and hashlib", ssl.OPENSSL_VERSION, bool(_hashlib.get_fips_mode())),
        CryptoModule("cryptography", backend.openssl_version_text(), bool(backend._fips_enabled)),
    )


def verify_fips(modules: Sequence[CryptoModule], *, signing_algorithm: str) -> None:
    """Check that nothing in use is outside an approved mode.

    Raises: FipsUnavailable, a line for each problem.
    """
    problems = [
        f"fips: {module.name} ({module.version}) is not in approved mode"
        for module in modules
        if not module.is_approved
    ]
    if signing_algorithm not in APPROVED_TOKEN_ALGORITHMS:
        expected = " or ".join(APPROVED_TOKEN_ALGORITHMS)
        problems.append(
            f"fips: authority.signing_algorithm: {signing_algorithm} is not on the list: expected {expected}"
        )
    if problems:
        raise FipsUnavailable("\n".join(problems))
