"""A key set from a signed file, for issuers that cannot be reached: carried in by hand, believed for its signature.

The file is one compact JWS whose payload is the JWK Set (RFC 7517 section 5), signed by a key whose public half was put in
place out of band; a member `exp` beside `keys` ends it. It is read again whenever keys are, so a new file needs no restart. By its
`iat` an older file than one that was believed is refused, as it may hold a key that was withdrawn since; what was believed is
forgotten with the process, so that only `exp` holds over restarts.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_public_key
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from security.errors import KeysUnavailable, MalformedDocument, TokenRejected
from security.oauth.algorithms import JoseKey, algorithms_of
from security.oauth.dpop import is_number
from security.oauth.jws import RULE_CHANGING_MEMBERS, is_signed_by, parse_jws
from security.oauth.key_set import MAX_KEY_SET_BYTES, parse_key_set

MAX_FILE_CHARS = 2 * MAX_KEY_SET_BYTES


class SignedFileJwksSource:
    """Satisfies `key_ring.JwksSource`."""

    def __init__(self, path: Path, key_path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._key_path = key_path
        self._clock = clock
        self._issued_at = 0.0
        self._ends_at: float | None = None
        self._text: str | None = None
        self._believed: str | None = None

    def replace(self, data: bytes) -> None:
        """From now on this is what the file holds: whoever uses it may not be able to see one that took its place."""
        self._text = data.decode("ascii", "replace")

    def restore(self) -> None:
        """What was brought last is not to be believed: go on with what was, as long as that is good."""
        self._text = self._believed

    def is_over(self) -> bool:
        """Whether the file that was believed last has ended: nobody MUST go on with its keys."""
        return self._ends_at is not None and self._ends_at <= self._clock()

    async def fetch(self) -> bytes:
        """The key set's bytes, signature and end checked. Raises: KeysUnavailable, naming the file."""
        return await asyncio.to_thread(self.read)

    def read(self) -> bytes:
        """The same, now. Raises: KeysUnavailable."""
        try:
            text = (self._path.read_text("ascii") if self._text is None else self._text).strip()
            key = _load_public_key(self._key_path.read_bytes())
            jws = parse_jws(text, max_chars=MAX_FILE_CHARS)
            payload = jws.payload()
        except (OSError, ValueError, JoseError, MalformedDocument, TokenRejected) as error:
            raise KeysUnavailable(f"{self._path} cannot be used: {type(error).__name__}: {error}") from error
        algorithm = jws.header.get("alg")
        if any(name in jws.header for name in ("jwk", *RULE_CHANGING_MEMBERS)) or algorithm not in algorithms_of(key):
            raise KeysUnavailable(f"{self._path}: the header is not that of a key set signed by {self._key_path}")
        if not is_signed_by(jws, key, str(algorithm)):
            raise KeysUnavailable(f"{self._path} is not signed by {self._key_path}")
        if "exp" in payload and not (is_number(payload["exp"]) and payload["exp"] > self._clock()):
            raise KeysUnavailable(f"{self._path} has expired: bring a newer one")
        issued_at = payload.get("iat", 0)
        if not is_number(issued_at) or issued_at < self._issued_at:
            raise KeysUnavailable(
                f"{self._path} is older than the file before it: it may hold a key that was withdrawn"
            )
        try:
            parse_key_set(jws.payload_bytes)  # Or keys that stay at hand would get this file's end.
        except MalformedDocument as error:
            raise KeysUnavailable(f"{self._path} cannot be used: {error}") from error
        self._issued_at, self._ends_at, self._believed = issued_at, payload.get("exp"), text
        return jws.payload_bytes


def _load_public_key(pem: bytes) -> JoseKey:
    load_pem_public_key(pem)  # A private key has no place on this host.
    for kind in (ECKey, OKPKey, RSAKey):
        try:
            key: JoseKey = kind.import_key(pem)
            if algorithms_of(key):
                return key
        except (JoseError, ValueError, TypeError, AttributeError):
            continue
    raise ValueError("not a public key of a kind that is used here")
