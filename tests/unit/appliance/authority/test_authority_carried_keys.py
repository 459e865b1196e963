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


async def test_a_token_that_was_accepted_before_opens_nothing_when_the_file_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is remembered, so that its signature need not be verified again; its key has ended all the same."""
    signer, key = generate_p256(), ECKey.generate_key("P-256", {"kid": "far-1"})
    signer_file, file = tmp_path / "signer.pem", tmp_path / "far.jws"
    signer_file.write_bytes(signer.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    document = json.dumps({"keys": [key.as_dict(private=False)]})
    file.write_text(jws.serialize_compact({"alg": "ES256"}, document, import_private_key(signer)))
    settings = IssuerSettings(
        name="far", issuer=ISSUER, audience=AUDIENCE, tenant="acme", default_role="user",
        jwks_file=str(file), jwks_signer_file=str(signer_file),
    )  # fmt: skip
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "u", "client_id": "c", "jti": "j", "iat": now, "exp": now + 600}
    token = jwt.encode({"alg": "ES256", "typ": "at+jwt", "kid": "far-1"}, claims, key)
    ended: list[bool] = []
    monkeypatch.setattr(SignedFileJwksSource, "is_over", lambda _: bool(ended))
    issuer = ForeignIssuer(settings, "1.3")
    assert (await issuer.validator.validate(token)).client_id == "far:c"
    ended.append(True)
    with pytest.raises(KeysUnavailable, match="expired"):
        await issuer.validator.validate(token)
