"""An authenticator in software (WebAuthn sections 6 and 8.7), as a browser with it would answer: CBOR and signatures written
out over pyca/cryptography, so that it shares no code with what judges it.
"""

import base64
import hashlib
import json
import secrets

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def cbor(value):
    """RFC 8949 of what is needed here: integers, bytes, text, maps."""

    def head(major, number):
        if number < 24:
            return bytes([major << 5 | number])
        return (
            bytes([major << 5 | 24, number]) if number < 256 else bytes([major << 5 | 25]) + number.to_bytes(2, "big")
        )

    match value:
        case int():
            return head(0, value) if value >= 0 else head(1, -1 - value)
        case bytes():
            return head(2, len(value)) + value
        case str():
            return head(3, len(value.encode())) + value.encode()
        case dict():
            return head(5, len(value)) + b"".join(cbor(key) + cbor(item) for key, item in value.items())
    raise TypeError(value)


class SoftAuthenticator:
    """One key, and the browser it is plugged into."""

    def __init__(self, origin, *, counts=True):
        self.origin = origin
        self.key = generate_private_key(SECP256R1())
        self.credential_id = secrets.token_bytes(32)
        self.counter = 1 if counts else 0

    def create(self, options, **changes):
        """The answer to a registration, in the browser's JSON."""
        numbers = self.key.public_key().public_numbers()
        coordinates = {-2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")}
        public_key = {1: 2, 3: changes.get("alg", -7), -1: 1, **coordinates}
        attested = bytes(16) + len(self.credential_id).to_bytes(2, "big") + self.credential_id + cbor(public_key)
        data = self._authenticator_data(options["rp"]["id"], 0x41, changes) + attested
        attestation = cbor({"fmt": "none", "attStmt": {}, "authData": data})
        client_data = self._client_data("webauthn.create", options["challenge"], changes)
        return self._answer({"clientDataJSON": b64(client_data), "attestationObject": b64(attestation)})

    def get(self, options, **changes):
        """The answer to a sign-in."""
        if self.counter:
            self.counter += 1
        data = self._authenticator_data(options["rpId"], 0x01, changes)
        client_data = self._client_data("webauthn.get", options["challenge"], changes)
        signature = self.key.sign(data + hashlib.sha256(client_data).digest(), ECDSA(SHA256()))
        answer = {"clientDataJSON": b64(client_data), "authenticatorData": b64(data), "signature": b64(signature)}
        return self._answer(answer)

    def _authenticator_data(self, rp_id, flags, changes):
        digest = hashlib.sha256(changes.get("rp_id", rp_id).encode()).digest()
        return digest + bytes([changes.get("flags", flags)]) + changes.get("counter", self.counter).to_bytes(4, "big")

    def _client_data(self, kind, challenge, changes):
        data = {
            "type": kind,
            "challenge": challenge,
            "origin": self.origin,
            "crossOrigin": False,
            **changes.get("client", {}),
        }
        return json.dumps(data).encode()

    def _answer(self, response):
        name = b64(self.credential_id)
        return json.dumps(
            {"id": name, "rawId": name, "type": "public-key", "response": response, "clientExtensionResults": {}}
        )
