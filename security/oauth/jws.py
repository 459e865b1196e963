"""A compact JWS (RFC 7515), cut and parsed once and strictly: what a signature covers is what is read, by one reader only.

Three segments in canonical base64url, so one token has one spelling; JSON objects without duplicate names; a header that
changes no rules and brings no key. Sizes are bounded before anything is parsed. Which algorithm and key are right is the
caller's to say, and it MUST say it before `is_signed_by`.
"""

import base64
import binascii
import re
from typing import Any

import msgspec
from joserfc.errors import JoseError

from security.errors import MalformedDocument, TokenRejected
from security.json_object import parse_json_object
from security.oauth.algorithms import FOREIGN_MODELS, JoseKey

MAX_TOKEN_CHARS = 8192

_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
RULE_CHANGING_MEMBERS = ("crit", "b64", "jku", "x5u", "x5c", "zip", "enc", "cty")
"""What changes the rules of the signature, or brings a key or the address of one; `jwk` belongs to them wherever it is not
the rule.
"""


class Jws(msgspec.Struct, frozen=True):
    """A JWS whose header was parsed; nothing is verified."""

    header: dict[str, Any]
    signed: bytes
    signature: bytes
    payload_bytes: bytes

    def payload(self) -> dict[str, Any]:
        """The claims. Raises: TokenRejected."""
        try:
            return parse_json_object(self.payload_bytes)
        except MalformedDocument as error:
            raise TokenRejected(f"the token's payload: {error}") from None


def parse_jws(token: str, *, max_chars: int = MAX_TOKEN_CHARS, max_header_chars: int = 2048) -> Jws:
    """Cut an untrusted JWS and parse its header.

    Raises: MalformedDocument, in words that go on after "the token".
    """
    if len(token) > max_chars or not _COMPACT.fullmatch(token):
        raise MalformedDocument(" is not a compact JWS")
    data = token.encode("ascii")
    signed, _, signature = data.rpartition(b".")
    header, _, payload = signed.partition(b".")
    if len(header) > max_header_chars:
        raise MalformedDocument("'s header is too large")
    try:
        parsed = parse_json_object(_decode(header))
    except MalformedDocument as error:
        words = str(error)
        raise MalformedDocument(words if words.startswith(" is") else f"'s header: {words}") from None
    return Jws(parsed, signed, _decode(signature), _decode(payload))


def _decode(segment: bytes) -> bytes:
    """Canonical base64url only (RFC 7515 section 2): unused bits are zero, so one token has one spelling."""
    try:
        decoded = base64.urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    except (binascii.Error, ValueError):
        raise MalformedDocument(" is not in base64url") from None
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != segment:
        raise MalformedDocument(" is not in canonical base64url")
    return decoded


def sign_jws(header: dict[str, Any], claims: dict[str, Any], key: JoseKey) -> str:
    """A compact JWS by the algorithm of its header, which MUST be the key's. joserfc's own would not give the name `EdDSA`."""
    parts = (base64.urlsafe_b64encode(msgspec.json.encode(part)).rstrip(b"=") for part in (header, claims))
    signed = b".".join(parts)
    signature = base64.urlsafe_b64encode(FOREIGN_MODELS[header["alg"]].sign(signed, key)).rstrip(b"=")
    return (signed + b"." + signature).decode("ascii")


def is_signed_by(jws: Jws, key: JoseKey, algorithm: str) -> bool:
    """True if the signature holds. The caller MUST have checked that the algorithm is one of the key's and allowed at all."""
    try:
        return bool(FOREIGN_MODELS[algorithm].verify(jws.signed, jws.signature, key))
    except (JoseError, ValueError, TypeError):
        return False
