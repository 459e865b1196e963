"""The resource server's side: from an untrusted token to an `AccessToken`, or a refusal.

Validation, all of it, in this order (RFC 9068 section 4, RFC 8725 section 3):

    (1) size and alphabet, before anything is parsed         (5) key, by its id, of the issuer's keys only
    (2) a token that was accepted before, by its full digest (6) signature, with the algorithm that the key is for
    (3) three segments in canonical base64url                (7) claims, from JSON without duplicate names
    (4) header: typ, alg, kid, and nothing that brings keys

The header is parsed once, here, so no second parser can read it otherwise; joserfc is given a key and bytes. No algorithm is
taken from the token without being on our list *and* being the key's own, so neither `none` nor a public key used as an HMAC secret
has a path.
"""

import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from security.errors import MalformedDocument, TokenRejected
from security.oauth.access_token import AccessToken, ClaimRules, parse_access_token
from security.oauth.algorithms import ALGORITHMS, JoseKey, algorithms_of
from security.oauth.jws import MAX_TOKEN_CHARS, RULE_CHANGING_MEMBERS, Jws, is_signed_by, parse_jws
from security.oauth.key_ring import KeyRing
from security.oauth.key_set import MAX_KID_CHARS

MAX_HEADER_CHARS = 2048
"""Of the encoded header. joserfc's own bound of 512 would refuse honest headers with certificate digests."""
MAX_CACHED_TOKENS = 8192
"""About 1.1 KB each with the digest and the dictionary: at most 9 MB."""
SKEW_S = 5
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
_REFUSED_MEMBERS = ("jwk", *RULE_CHANGING_MEMBERS)


class Profile(Protocol):
    """How the tokens of one issuer look: `OwnProfile`, or one of `profiles`."""

    @property
    def types(self) -> frozenset[str]:
        """What `typ` may be, in small letters; the empty text stands for none."""

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Members of the header that may name the key, in this order."""

    @property
    def algorithms(self) -> tuple[str, ...]:
        """What `alg` may be."""

    def parse(self, claims: dict[str, Any], kid: str, now: float) -> AccessToken:
        """The token, from verified claims. Raises: TokenRejected."""


class OwnProfile(msgspec.Struct, frozen=True):
    """RFC 9068 in full, with the claims that our own authority adds."""

    rules: ClaimRules
    types: frozenset[str] = frozenset({"at+jwt", "application/at+jwt"})
    key_ids: tuple[str, ...] = ("kid",)
    algorithms: tuple[str, ...] = ALGORITHMS

    def parse(self, claims: dict[str, Any], kid: str, now: float) -> AccessToken:
        """The token, from verified claims. Raises: TokenRejected."""
        return parse_access_token(claims, kid, self.rules, now)


class AccessTokenValidator:
    """Validates tokens of one issuer for one resource server. One per event loop."""

    def __init__(
        self,
        keys: KeyRing,
        *,
        issuer: str = "",
        audience: str = "",
        profile: Profile | None = None,
        skew_s: int = SKEW_S,
        max_cached_tokens: int = MAX_CACHED_TOKENS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """With a profile, or for tokens of our own with issuer and audience."""
        if profile is None and not (issuer and audience):
            raise ValueError("issuer and audience are required")
        self._keys = keys
        self._profile: Profile = profile or OwnProfile(ClaimRules(issuer, audience, skew_s))
        self._skew_s = skew_s
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
        jws = _parse(token)
        kid, algorithm = self._parse_header(jws.header)
        key = self._keys.find(kid)
        if key is None and await self._keys.refresh():
            key = self._keys.find(kid)
        if key is None:
            raise TokenRejected("the token is signed with a key that its issuer does not publish")
        _verify_signature(key, algorithm, jws)
        access_token = self._profile.parse(jws.payload(), kid, self._clock())
        self._accept(digest, access_token)
        return access_token

    def _parse_header(self, header: dict[str, Any]) -> tuple[str, str]:
        """Key id and algorithm of a header that is otherwise of no interest."""
        for name in _REFUSED_MEMBERS:
            if name in header:
                raise TokenRejected(f"the token's header has {name}")
        token_type, algorithm, kid = header.get("typ", ""), header.get("alg"), self._find_key_id(header)
        if not isinstance(token_type, str) or token_type.lower() not in self._profile.types:
            # RFC 9068 section 4: with its profile, absence is no excuse.
            raise TokenRejected(f"typ: expected {' or '.join(sorted(self._profile.types)) or 'none'}")
        if not isinstance(algorithm, str) or algorithm not in self._profile.algorithms:
            raise TokenRejected(f"alg: expected {' or '.join(self._profile.algorithms)}")
        if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID_CHARS:
            raise TokenRejected("kid: expected the id of a key")
        return kid, algorithm

    def _find_key_id(self, header: dict[str, Any]) -> Any:
        return next((header[name] for name in self._profile.key_ids if name in header), None)

    def _find_accepted(self, digest: bytes) -> AccessToken | None:
        if self._accepted_generation != self._keys.generation:
            self._accepted.clear()  # A key may have been withdrawn.
            self._accepted_generation = self._keys.generation
        accepted = self._accepted.get(digest)
        if accepted is None:
            return None
        self._keys.find(accepted.kid)  # Raises when the keys have become useless.
        if accepted.expires_at + self._skew_s <= self._clock():
            del self._accepted[digest]
            return None
        self._accepted.move_to_end(digest)
        return accepted

    def _accept(self, digest: bytes, access_token: AccessToken) -> None:
        self._accepted[digest] = access_token
        while len(self._accepted) > self._max_cached_tokens:
            self._accepted.popitem(last=False)


def _parse(token: str) -> Jws:
    try:
        return parse_jws(token, max_header_chars=MAX_HEADER_CHARS)
    except MalformedDocument as error:
        raise TokenRejected(f"the token{error}") from None


def _verify_signature(key: JoseKey, algorithm: str, jws: Jws) -> None:
    # RFC 8725 section 3.1: the algorithm must be one that the key is for.
    if algorithm not in algorithms_of(key):
        raise TokenRejected("alg: not the algorithm of the key")
    if not is_signed_by(jws, key, algorithm):
        raise TokenRejected("the token's signature does not hold")
