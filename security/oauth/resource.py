"""The resource server's side: from an untrusted Authorization header to an `AccessToken`, or a refusal.

Validation, all of it, in this order (RFC 9068 section 4, RFC 8725 section 3):

    (1) size and alphabet, before anything is parsed         (5) key, by its id, of the issuer's keys only
    (2) a token that was accepted before, by its full digest (6) signature, with the algorithm that the key is for
    (3) three segments in canonical base64url                (7) claims, from JSON without duplicate names
    (4) header: typ, alg, kid, and nothing that brings keys

The header is parsed once, here, so no second parser can read it otherwise; joserfc is given a key and bytes. No algorithm is
taken from the token without being on our list *and* being the key's own, so neither `none` nor a public key used as an HMAC secret
has a path.
"""

import base64
import binascii
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec
from joserfc.errors import JoseError

from security.errors import MalformedDocument, TokenRejected
from security.json_object import parse_json_object
from security.oauth.access_token import AccessToken, ClaimRules, parse_access_token
from security.oauth.algorithms import MODELS, JoseKey, algorithm_of
from security.oauth.key_ring import KeyRing
from security.oauth.key_set import MAX_KID_CHARS

MAX_TOKEN_CHARS = 8192
MAX_HEADER_CHARS = 2048
"""Of the encoded header. joserfc's own bound of 512 would refuse honest headers with certificate digests."""
MAX_CACHED_TOKENS = 8192
"""About 1.1 KB each with the digest and the dictionary: at most 9 MB."""
SKEW_S = 5

_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
_TYPES = frozenset({"at+jwt", "application/at+jwt"})
_REFUSED_MEMBERS = ("crit", "b64", "jwk", "jku", "x5u", "x5c", "zip", "enc", "cty")
"""What changes the rules of the signature, or brings a key or the address of one."""


class _Segments(msgspec.Struct, frozen=True):
    """A token cut into its parts."""

    signed: bytes
    header: bytes
    payload: bytes
    signature: bytes


def parse_bearer(authorization: str) -> str:
    """The token in an Authorization header (RFC 6750 section 2.1). Whether it is any good, `validate` says.

    Raises: TokenRejected.
    """
    scheme, space, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not space:
        raise TokenRejected("the Authorization header is not of the scheme Bearer")
    return token


class AccessTokenValidator:
    """Validates tokens of one issuer for one resource server. One per event loop."""

    def __init__(
        self,
        keys: KeyRing,
        *,
        issuer: str,
        audience: str,
        skew_s: int = SKEW_S,
        max_cached_tokens: int = MAX_CACHED_TOKENS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not (issuer and audience):
            raise ValueError("issuer and audience are required")
        self._keys = keys
        self._rules = ClaimRules(issuer, audience, skew_s)
        self._clock = clock
        self._max_cached_tokens = max_cached_tokens
        self._accepted: OrderedDict[bytes, AccessToken] = OrderedDict()
        self._accepted_generation = keys.generation

    async def validate(self, token: str) -> AccessToken:
        """Validate an untrusted token. It waits only if its key is unknown or the keys have grown old.

        Raises: TokenRejected (answer 401), KeysUnavailable (answer 503); nothing else.
        """
        # (1)
        if len(token) > MAX_TOKEN_CHARS or not _TOKEN.fullmatch(token):
            raise TokenRejected("this is not an access token of ours")
        await self._keys.keep_fresh()
        # (2)
        digest = hashlib.sha256(token.encode("ascii")).digest()
        if (accepted := self._find_accepted(digest)) is not None:
            return accepted
        # (3) to (7)
        segments = _split(token)
        kid, algorithm = _parse_header(segments.header)
        key = self._keys.find(kid)
        if key is None and await self._keys.refresh():
            key = self._keys.find(kid)
        if key is None:
            raise TokenRejected("the token is signed with a key that its issuer does not publish")
        _verify_signature(key, algorithm, segments)
        access_token = parse_access_token(_parse_payload(segments.payload), kid, self._rules, self._clock())
        self._accept(digest, access_token)
        return access_token

    def _find_accepted(self, digest: bytes) -> AccessToken | None:
        if self._accepted_generation != self._keys.generation:
            self._accepted.clear()  # A key may have been withdrawn.
            self._accepted_generation = self._keys.generation
        accepted = self._accepted.get(digest)
        if accepted is None:
            return None
        self._keys.find(accepted.kid)  # Raises when the keys have become useless.
        if accepted.expires_at + self._rules.skew_s <= self._clock():
            del self._accepted[digest]
            return None
        self._accepted.move_to_end(digest)
        return accepted

    def _accept(self, digest: bytes, access_token: AccessToken) -> None:
        self._accepted[digest] = access_token
        while len(self._accepted) > self._max_cached_tokens:
            self._accepted.popitem(last=False)


def _split(token: str) -> _Segments:
    data = token.encode("ascii")
    signed, _, signature = data.rpartition(b".")
    header, _, payload = signed.partition(b".")
    if len(header) > MAX_HEADER_CHARS:
        raise TokenRejected("the token's header is too large")
    return _Segments(signed, _decode(header), _decode(payload), _decode(signature))


def _decode(segment: bytes) -> bytes:
    """Canonical base64url only (RFC 7515 section 2): unused bits are zero, so one token has one spelling."""
    try:
        decoded = base64.urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    except (binascii.Error, ValueError):
        raise TokenRejected("the token is not in base64url") from None
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != segment:
        raise TokenRejected("the token is not in canonical base64url")
    return decoded


def _parse_header(data: bytes) -> tuple[str, str]:
    """Key id and algorithm of a header that is otherwise of no interest."""
    header = _parse_object(data, "header")
    for name in _REFUSED_MEMBERS:
        if name in header:
            raise TokenRejected(f"the token's header has {name}")
    token_type, algorithm, kid = header.get("typ"), header.get("alg"), header.get("kid")
    if not isinstance(token_type, str) or token_type.lower() not in _TYPES:
        raise TokenRejected("typ: expected at+jwt")  # RFC 9068 section 4: its absence is no excuse.
    if not isinstance(algorithm, str) or algorithm not in MODELS:
        raise TokenRejected(f"alg: expected {' or '.join(MODELS)}")
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID_CHARS:
        raise TokenRejected("kid: expected the id of a key")
    return kid, algorithm


def _parse_payload(data: bytes) -> dict[str, Any]:
    return _parse_object(data, "payload")


def _parse_object(data: bytes, part: str) -> dict[str, Any]:
    try:
        return parse_json_object(data)
    except MalformedDocument as error:
        raise TokenRejected(f"the token's {part}: {error}") from None


def _verify_signature(key: JoseKey, algorithm: str, segments: _Segments) -> None:
    # RFC 8725 section 3.1: the algorithm must be the one that the key is for.
    if algorithm != algorithm_of(key):
        raise TokenRejected("alg: not the algorithm of the key")
    try:
        holds = MODELS[algorithm].verify(segments.signed, segments.signature, key)
    except (JoseError, ValueError, TypeError):
        holds = False
    if not holds:
        raise TokenRejected("the token's signature does not hold")
