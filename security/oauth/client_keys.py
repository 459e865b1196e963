"""The public keys or certificates by which a client authenticates: an untrusted JWK Set, read strictly (RFC 7517).

For `private_key_jwt` the keys count; for `self_signed_tls_client_auth` the certificate in `x5c` (RFC 8705 section 2.2).
Bounds: MAX_CLIENT_KEYS_BYTES, and those of `key_set`.
"""

import base64
import binascii
from typing import Any

from cryptography import x509

from security.certificates import may_sign_others
from security.errors import MalformedDocument
from security.json_object import parse_json_object
from security.oauth.key_set import MAX_KEYS, PRIVATE_MEMBERS

MAX_CLIENT_KEYS_BYTES = 32 << 10


def parse_client_keys(text: str) -> list[dict[str, Any]]:
    """The entries of a client's JWK Set. Whether an entry makes a key that can be used, its user says.

    Raises: MalformedDocument for whatever is refused.
    """
    data = text.encode()
    if len(data) > MAX_CLIENT_KEYS_BYTES:
        raise MalformedDocument(f"key set: {len(data)} bytes, at most {MAX_CLIENT_KEYS_BYTES} are allowed")
    entries = parse_json_object(data).get("keys")
    if not isinstance(entries, list) or not 0 < len(entries) <= MAX_KEYS:
        raise MalformedDocument(f"key set: expected a list of 1 to {MAX_KEYS} keys")
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("kty"), str):
            raise MalformedDocument("key set: an entry is not a key")
        if PRIVATE_MEMBERS & entry.keys():
            raise MalformedDocument("key set: an entry holds a secret: give the public key only")
    return entries


def find_certificates(entries: list[dict[str, Any]]) -> list[bytes]:
    """The first certificate of each `x5c`, DER.

    One that may sign others is refused: it stands among those that TLS trusts, so its owner could name themselves anybody.

    Raises: MalformedDocument.
    """
    found: list[bytes] = []
    for entry in entries:
        chain = entry.get("x5c")
        if not isinstance(chain, list) or not chain or not isinstance(chain[0], str):
            continue
        try:
            der = base64.b64decode(chain[0], validate=True)
            is_authority = may_sign_others(x509.load_der_x509_certificate(der))
        except (binascii.Error, ValueError):
            raise MalformedDocument("key set: x5c does not begin with a certificate") from None
        if is_authority:
            raise MalformedDocument(
                "key set: the certificate in x5c may sign others; make one with basicConstraints CA:FALSE"
            )
        found.append(der)
    return found
