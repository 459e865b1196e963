"""An issuer whose keys were carried in as a file: what the file's signer said of their end is asked at each token."""

import json
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jws, jwt
from joserfc.jwk import ECKey

from appliance.authority.foreign_issuers import ForeignIssuer
from security.errors import KeysUnavailable
from security.issuer_settings import IssuerSettings
from security.keys import generate_p256
from security.oauth.algorithms import import_private_key
from security.oauth.file_source import SignedFileJwksSource

ISSUER, AUDIENCE = "https://far.example", "api://casemate"


class Far:
    """An issuer that cannot be reached, its key, and the file that was carried here."""

    def __init__(self, folder: Path) -> None:
        signer, self.key = generate_p256(), ECKey.generate_key("P-256", {"kid": "far-1"})
        signer_file, self.file = folder / "signer.pem", folder / "far.jws"
        signer_file.write_bytes(signer.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        document = json.dumps({"keys": [self.key.as_dict(private=False)], "iat": 1000})
        self.file.write_text(jws.serialize_compact({"alg": "ES256"}, document, import_private_key(signer)))
        self.settings = IssuerSettings(
            name="far", issuer=ISSUER, audience=AUDIENCE, tenant="acme", default_role="user",
            jwks_file=str(self.file), jwks_signer_file=str(signer_file),
        )  # fmt: skip

    def token(self) -> str:
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "u", "client_id": "c", "jti": "j", "iat": now}
        return jwt.encode({"alg": "ES256", "typ": "at+jwt", "kid": "far-1"}, claims | {"exp": now + 600}, self.key)


async def test_a_token_that_was_accepted_before_opens_nothing_when_the_file_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is remembered, so that its signature need not be verified again; its key has ended all the same."""
    far, ended = Far(tmp_path), list[bool]()
    monkeypatch.setattr(SignedFileJwksSource, "is_over", lambda _: bool(ended))
    issuer, token = ForeignIssuer(far.settings, "1.3"), far.token()
    assert (await issuer.validator.validate(token)).client_id == "far:c"
    ended.append(True)
    with pytest.raises(KeysUnavailable, match="expired"):
        await issuer.validator.validate(token)


async def test_a_file_that_is_refused_does_not_end_the_one_in_use(tmp_path: Path) -> None:
    """Not when the keys have grown old and are read again either: an hour later nobody would know why."""
    far = Far(tmp_path)
    issuer = ForeignIssuer(far.settings, "1.3")
    assert (await issuer.validator.validate(far.token())).client_id == "far:c"
    far.file.write_text("what somebody put there")
    for refused in (b"what somebody put there", b""):
        with pytest.raises(KeysUnavailable):
            await issuer.renew_keys(refused)
    await issuer._keys.load()
    assert (await issuer.validator.validate(far.token())).client_id == "far:c"
