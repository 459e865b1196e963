"""Fixtures of the security package's tests: a clock that is set, an issuer, and its validator."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jws import JWSRegistry

from security.errors import KeysUnavailable
from security.oauth.access_token import AccessToken
from security.oauth.key_ring import KeyRing
from security.oauth.resource import AccessTokenValidator
from security.oauth.signing_keys import SigningKeys

NOW = 1_800_000_000
ISSUER = "https://authority.example:8444"
AUDIENCE = "https://gateway.example:8443"


@pytest.fixture(autouse=True)
def _quick_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """A password costs a twentieth of a second by design; nothing here is about that, but one test, which says so."""
    monkeypatch.setattr("security.passwords.MEMORY_KIB", 64)


class Clock:
    """A clock that moves only when it is told to."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class KeySource:
    """A key set that is published in memory, and counts how often it is fetched."""

    def __init__(self, publish: Callable[[], dict[str, Any]]) -> None:
        self.publish = publish
        self.num_fetches = 0
        self.is_down = False

    async def fetch(self) -> bytes:
        self.num_fetches += 1
        await asyncio.sleep(0)
        if self.is_down:
            raise KeysUnavailable("down for the test")
        return json.dumps(self.publish()).encode()


class Issuer:
    """Signs whatever a test wants signed, with the real key."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self.clock = clock
        self.keys = SigningKeys.load_or_create(directory, clock=clock)
        self.source = KeySource(self.keys.public_key_set)
        self.ring_clock = Clock(1000.0)
        self.ring = KeyRing(self.source, clock=self.ring_clock)
        self.validator = AccessTokenValidator(self.ring, issuer=ISSUER, audience=AUDIENCE, clock=clock)

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Good claims, changed; a change to `...` leaves the claim out."""
        claims = {
            "iss": ISSUER,
            "sub": "demo-1",
            "aud": AUDIENCE,
            "client_id": "demo-1",
            "exp": NOW + 600,
            "iat": NOW,
            "jti": "j" * 22,
            "scope": "inference models.read",
            "roles": ["user"],
            "tenant": "default",
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not ...}

    def header(self, **changes: Any) -> dict[str, Any]:
        """A good header, changed; a change to `...` leaves the member out."""
        key = self.keys.current
        header = {"alg": key.algorithm, "typ": "at+jwt", "kid": key.kid, **changes}
        return {name: value for name, value in header.items() if value is not ...}

    def sign(self, claims: dict[str, Any] | None = None, header: dict[str, Any] | None = None) -> str:
        """A token signed with the issuer's key."""
        registry = JWSRegistry(algorithms=["ES256", "Ed25519"], strict_check_header=False)
        header = self.header() if header is None else header
        claims = self.claims() if claims is None else claims
        return jwt.encode(header, claims, self.keys.current.key, registry=registry, default_type=None)

    def sign_text(self, header: bytes, payload: bytes) -> str:
        """A token over exactly these bytes."""
        from base64 import urlsafe_b64encode

        from security.oauth.algorithms import MODELS

        def encode(data: bytes) -> bytes:
            return urlsafe_b64encode(data).rstrip(b"=")

        signed = encode(header) + b"." + encode(payload)
        key = self.keys.current
        return (signed + b"." + encode(MODELS[key.algorithm].sign(signed, key.key))).decode()

    async def validate(self, token: str) -> AccessToken:
        """Validate with the real validator."""
        return await self.validator.validate(token)


@pytest.fixture
def clock() -> Clock:
    """A clock that is set."""
    return Clock()


@pytest.fixture
def issuer(tmp_path: Path, clock: Clock) -> Issuer:
    """An issuer and a validator that trusts it."""
    return Issuer(tmp_path / "signing", clock)
