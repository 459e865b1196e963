"""The keys that sign tokens: one signs, all that are here are published, so that keys overlap.

Each lies in a file `signing-<unix seconds of its making>.pem`; where PEM does not tell its algorithm that is behind the time
(`signing-<…>-ps256.pem`). A new key is published at once and signs only after
ACTIVATION_DELAY_S, when every resource server has read the key set again; an old one is removed when all that it signed has
expired. So a rotation refuses nobody, and needs no coordination beyond the files.
"""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from security.errors import KeyUnusable
from security.keys import (
    SigningPrivateKey,
    encode_private_key,
    generate_ed25519,
    generate_p256,
    generate_rsa,
    load_private_key,
    load_rsa_key,
    make_private_directory,
    write_exclusive,
)
from security.oauth.algorithms import RSA_ALGORITHMS, JoseKey, algorithm_of, import_private_key

ACTIVATION_DELAY_S = 600
"""Longer than resource servers keep a key set without asking again."""
RETENTION_S = 7200
"""Longer than any token lives after the next key has begun to sign."""

SigningAlgorithm = Literal["ES256", "Ed25519", "EdDSA", "PS256", "RS256"]
_FILE_NAME = re.compile(r"signing-(\d{1,12})(?:-(ps256|rs256|eddsa))?\.pem")
_GENERATORS: dict[SigningAlgorithm, Callable[[], SigningPrivateKey | RSAPrivateKey]] = {
    "ES256": generate_p256,
    "Ed25519": generate_ed25519,
    "EdDSA": generate_ed25519,
    "PS256": generate_rsa,
    "RS256": generate_rsa,
}
_NAMED = {"ps256": "PS256", "rs256": "RS256", "eddsa": "EdDSA"}
"""In a file's name, and what it stands for."""


class SigningKey(msgspec.Struct, frozen=True):
    """One key and its place in time."""

    made_at: int
    path: Path
    key: JoseKey

    @property
    def kid(self) -> str:
        """The key's id: its thumbprint (RFC 7638)."""
        return str(self.key.kid)

    @property
    def algorithm(self) -> str:
        """What it signs with."""
        return str(algorithm_of(self.key))

    def __repr__(self) -> str:
        return f"SigningKey(kid={self.kid!r}, made_at={self.made_at})"


class SigningKeys:
    """The keys of one directory, oldest first; never empty."""

    def __init__(self, directory: Path, keys: list[SigningKey], clock: Callable[[], float]) -> None:
        self._directory = directory
        self._keys = keys
        self._clock = clock

    @classmethod
    def load_or_create(
        cls, directory: Path, *, algorithm: SigningAlgorithm = "ES256", clock: Callable[[], float] = time.time
    ) -> Self:
        """Load every key of the directory; make the first one where there is none.

        Raises: KeyUnusable, naming the file.
        """
        make_private_directory(directory)
        if not _find_files(directory):
            _make_file(directory, int(clock()), algorithm)
        return cls(directory, [_load(path) for path in _find_files(directory)], clock)

    @property
    def all(self) -> tuple[SigningKey, ...]:
        """Every key that a valid token may be signed with."""
        return tuple(self._keys)

    @property
    def current(self) -> SigningKey:
        """The key that signs now: the newest that has been published long enough, or else the oldest."""
        now = self._clock()
        active = [key for key in self._keys if key.made_at + ACTIVATION_DELAY_S <= now]
        return active[-1] if active else self._keys[0]

    def rotate(self, algorithm: SigningAlgorithm) -> SigningKey:
        """Publish a new key, which signs after ACTIVATION_DELAY_S, and remove those that nothing needs any more.

        Raises: KeyUnusable; also while the last rotation is not finished.
        """
        now = int(self._clock())
        if self._keys[-1] is not self.current:
            raise KeyUnusable(f"{self._keys[-1].path} does not sign yet: wait until it does before the next rotation")
        self._remove_before(now - RETENTION_S)
        self._keys.append(_load(_make_file(self._directory, now, algorithm)))
        return self._keys[-1]

    def is_due(self, lifetime_s: int, algorithm: SigningAlgorithm) -> bool:
        """True if the key that signs is older than that (0: never too old), or of another algorithm, and no other is on its way."""
        newest = self._keys[-1]
        if newest is not self.current:
            return False
        is_old = lifetime_s > 0 and newest.made_at + lifetime_s <= self._clock()
        return is_old or newest.algorithm != algorithm

    def retire(self) -> bool:
        """Remove the keys that nothing needs any more. Returns: whether there were any. Raises: KeyUnusable."""
        num_keys = len(self._keys)
        self._remove_before(int(self._clock()) - RETENTION_S)
        return len(self._keys) < num_keys

    def _remove_before(self, deadline: int) -> None:
        while len(self._keys) > 1 and self._keys[1].made_at + ACTIVATION_DELAY_S < deadline:
            try:
                self._keys[0].path.unlink()
            except OSError as error:
                raise KeyUnusable(f"{self._keys[0].path} cannot be removed: {error.strerror}") from error
            del self._keys[0]

    def public_key_set(self) -> dict[str, Any]:
        """The JWK Set to publish (RFC 7517): public members only, each with `use`, `alg` and `kid`."""
        return {
            "keys": [
                {**key.key.as_dict(private=False), "kid": key.kid, "use": "sig", "alg": key.algorithm}
                for key in self._keys
            ]
        }


def _find_files(directory: Path) -> list[Path]:
    try:
        names = [path for path in directory.iterdir() if _FILE_NAME.fullmatch(path.name)]
    except OSError as error:
        raise KeyUnusable(f"folder {directory} cannot be read: {error.strerror}") from error
    return sorted(names, key=_made_at)


def _made_at(path: Path) -> int:
    matched = _FILE_NAME.fullmatch(path.name)
    assert matched is not None
    return int(matched[1])


def _load(path: Path) -> SigningKey:
    matched = _FILE_NAME.fullmatch(path.name)
    assert matched is not None
    named = None if matched[2] is None else _NAMED[matched[2]]
    made = load_rsa_key(path) if named in RSA_ALGORITHMS else load_private_key(path)
    if named == "EdDSA" and not isinstance(made, Ed25519PrivateKey):
        raise KeyUnusable(f"{path} holds a key of another kind: expected Ed25519")
    return SigningKey(int(matched[1]), path, import_private_key(made, named))


def _make_file(directory: Path, now: int, algorithm: SigningAlgorithm) -> Path:
    path = directory / f"signing-{now}{f'-{algorithm.lower()}' if algorithm in _NAMED.values() else ''}.pem"
    try:
        write_exclusive(path, encode_private_key(_GENERATORS[algorithm]()))
    except FileExistsError:
        pass  # Another process was faster within the same second; its key is as good as ours.
    return path
