"""A key set from a signed file ends when its signer said, also where it was believed before."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jws
from joserfc.jwk import ECKey

from security.errors import KeysUnavailable
from security.keys import generate_p256
from security.oauth.algorithms import import_private_key
from security.oauth.file_source import SignedFileJwksSource
from security.oauth.key_ring import FRESH_AGE_S, MIN_REFRESH_INTERVAL_S, KeyRing


class Carried:
    """A file that somebody carried here, and a clock."""

    def __init__(self, folder: Path) -> None:
        self.now = 1000.0
        self.key = ECKey.generate_key("P-256", {"kid": "corp-1"})
        self.file, signer_file = folder / "corp.jwks", folder / "signer.pem"
        signer = generate_p256()
        signer_file.write_bytes(signer.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        self.signer = import_private_key(signer)
        self.source = SignedFileJwksSource(self.file, signer_file, clock=lambda: self.now)
        self.ring = KeyRing(self.source, is_over=self.source.is_over, clock=lambda: self.now)

    def publish(self, **members: object) -> None:
        """Put another file there."""
        document = json.dumps({"keys": [self.key.as_dict(private=False)]} | members)
        self.file.write_text(jws.serialize_compact({"alg": "ES256"}, document, self.signer))


@pytest.fixture
def carried(tmp_path: Path) -> Carried:
    return Carried(tmp_path)


async def test_keys_open_nothing_from_their_end_on(carried: Carried) -> None:
    """Whatever their age: the signer said it for the day on which nobody brings a newer file."""
    carried.publish(iat=900, exp=1060)
    await carried.ring.load()
    carried.now = 1059.0
    assert carried.ring.find("corp-1") is not None
    for carried.now in (1060.0, 1060.0 + MIN_REFRESH_INTERVAL_S, 1060.0 + 2 * FRESH_AGE_S):
        await carried.ring.keep_fresh()
        with pytest.raises(KeysUnavailable, match="expired"):
            carried.ring.find("corp-1")


async def test_a_newer_file_is_taken_up_when_the_one_before_has_ended(carried: Carried) -> None:
    """By the next token, whether or not anybody told of it."""
    carried.publish(iat=900, exp=1060)
    await carried.ring.load()
    carried.now = 1100.0
    carried.publish(iat=950, exp=2000)
    await carried.ring.keep_fresh()
    assert carried.ring.find("corp-1") is not None


async def test_a_file_that_holds_no_keys_puts_no_end_off(carried: Carried) -> None:
    """The keys at hand are those of the file before, and end as it said; nor is a file between the two an older one."""
    carried.publish(iat=900, exp=1060)
    await carried.ring.load()
    carried.publish(iat=980, exp=2000, keys=[])
    with pytest.raises(KeysUnavailable, match="no key"):
        await carried.ring.load()
    carried.now = 1060.0
    with pytest.raises(KeysUnavailable, match="expired"):
        carried.ring.find("corp-1")
    carried.publish(iat=950, exp=2000)
    await carried.ring.load()
    assert carried.ring.find("corp-1") is not None


async def test_a_file_without_an_end_has_none(carried: Carried) -> None:
    """Also behind one that had."""
    carried.publish(iat=900, exp=1060)
    await carried.ring.load()
    carried.publish(iat=950)
    await carried.ring.load()
    carried.now = 2000.0
    assert carried.ring.find("corp-1") is not None
