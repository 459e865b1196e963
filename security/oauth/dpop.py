"""Proof of possession by DPoP (RFC 9449): an untrusted proof, checked in full by section 4.3, for both servers.

What is left to the caller: a proof's digest MUST be remembered for PROOF_LIFETIME_S and refused the second time (check 12
of section 4.3, section 11.1), the thumbprint MUST be compared with that in the token, and where nonces are asked for
(`dpop_nonces`), the proof's MUST be a good one.
"""

import base64
import hashlib
import re
import string
from typing import Any, TypeGuard
from urllib.parse import urlsplit

import msgspec

from security.errors import MalformedDocument, TokenRejected
from security.oauth.algorithms import FOREIGN_ALGORITHMS, algorithms_of
from security.oauth.jws import RULE_CHANGING_MEMBERS, is_signed_by, parse_jws
from security.oauth.key_set import parse_public_key

MAX_AGE_S = 120
MAX_AHEAD_S = 30
PROOF_LIFETIME_S = MAX_AGE_S + MAX_AHEAD_S
MAX_PROOF_CHARS = 4096
MAX_ID_CHARS = 256
_MAX_HEADER_CHARS = 3072
_ESCAPE = re.compile("%([0-9a-fA-F]{2})")
_UNRESERVED = string.ascii_letters + string.digits + "-._~"


class Proof(msgspec.Struct, frozen=True):
    """A proof that holds, if it is used for the first time."""

    thumbprint: str
    """RFC 7638, of the key that signed it."""
    digest: bytes
    """Of key and `jti`: what is remembered."""
    nonce: str
    """The server's, as the proof repeats it; empty if it does not."""
    issued_at: float
    """`iat`, by its maker's clock."""


def verify_proof(proofs: tuple[str, ...], *, method: str, urls: frozenset[str], now: float, token: str = "") -> Proof:
    """Check the DPoP header of a request.

    Args:
        proofs: every value of the header.
        urls: what the request may be addressed as, each without query and fragment, from `normalize_url`.
        token: the access token that is used with it; empty at the token endpoint.
    Raises: TokenRejected, in words for the client.
    """
    # (1) and (2): one header, one well-formed JWT.
    if len(proofs) != 1 or "," in proofs[0]:
        raise TokenRejected("expected one DPoP header with one proof")
    try:
        jws = parse_jws(proofs[0], max_chars=MAX_PROOF_CHARS, max_header_chars=_MAX_HEADER_CHARS)
    except MalformedDocument as error:
        raise TokenRejected(f"the proof{error}") from None
    # (4) to (7): type, an asymmetric algorithm, the public key, the signature.
    header = jws.header
    if header.get("typ") != "dpop+jwt" or any(name in header for name in RULE_CHANGING_MEMBERS):
        raise TokenRejected("the proof's header is not that of a DPoP proof")
    algorithm, jwk = header.get("alg"), header.get("jwk")
    if not isinstance(algorithm, str) or algorithm not in FOREIGN_ALGORITHMS:
        raise TokenRejected("the proof's algorithm is not supported")
    if not isinstance(jwk, dict):
        raise TokenRejected("the proof has no public key")
    try:
        key = parse_public_key(jwk)
    except MalformedDocument:
        raise TokenRejected("the proof's key is not a public key that is supported") from None
    if algorithm not in algorithms_of(key) or not is_signed_by(jws, key, algorithm):
        raise TokenRejected("the proof's signature does not hold")
    # (3) and (8) to (11): the claims.
    claims = jws.payload()
    _verify_claims(claims, method, urls, now, token)
    thumbprint = str(key.thumbprint())
    digest = hashlib.sha256(f"{thumbprint} {claims['jti']}".encode()).digest()
    nonce = claims.get("nonce")
    return Proof(thumbprint, digest, nonce if isinstance(nonce, str) else "", claims["iat"])


def _verify_claims(claims: dict[str, Any], method: str, urls: frozenset[str], now: float, token: str) -> None:
    proof_id, issued_at = claims.get("jti"), claims.get("iat")
    if not isinstance(proof_id, str) or not 0 < len(proof_id) <= MAX_ID_CHARS:
        raise TokenRejected("jti: expected the proof's own id")
    if claims.get("htm") != method:
        raise TokenRejected("htm: the proof is for another method")
    target = claims.get("htu")
    if not isinstance(target, str) or normalize_url(target) not in urls:
        raise TokenRejected("htu: the proof is for another address")
    if not is_number(issued_at) or not now - MAX_AGE_S <= issued_at <= now + MAX_AHEAD_S:
        raise TokenRejected("iat: the proof was not made just now")
    if token and claims.get("ath") != hash_token(token):
        raise TokenRejected("ath: the proof is for another token")


def is_number(value: Any) -> TypeGuard[float]:
    """True for a NumericDate (RFC 7519 section 2); `true` is none."""
    return type(value) in (int, float)


def hash_token(token: str) -> str:
    """`ath` of an access token (section 4.2)."""
    return _encode(hashlib.sha256(token.encode()).digest())


def thumbprint_of_certificate(der: bytes) -> str:
    """`x5t#S256` of a client's certificate (RFC 8705 section 3.1)."""
    return _encode(hashlib.sha256(der).digest())


def normalize_url(url: str) -> str:
    """An address without query and fragment, as section 4.3 wants `htu` compared: by RFC 3986, sections 6.2.2 and 6.2.3.

    Scheme and host are in small letters, the default port is left out, an empty path is `/`, letters that need no percent
    sign have none, and segments of dots are gone. Empty for what is no such address, or names a user.
    """
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        return ""
    if "@" in parts.netloc:
        return ""
    name = f"[{host}]" if ":" in host else host
    authority = name if port in (None, 443) else f"{name}:{port}"
    path = _ESCAPE.sub(_unescape, parts.path)
    return f"{parts.scheme.lower()}://{authority}{_without_dots(path) if '/.' in path else path or '/'}"


def _unescape(escape: re.Match[str]) -> str:
    letter = chr(int(escape[1], 16))
    return letter if letter in _UNRESERVED else escape[0].upper()


def _without_dots(path: str) -> str:
    """RFC 3986 section 5.2.4, of a path that begins with a slash."""
    kept: list[str] = []
    for segment in path.split("/")[1:]:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if path.endswith(("/.", "/..")):
        kept.append("")
    return "/" + "/".join(kept)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
