"""Our own access tokens, looked at by the authority itself: as strictly as a gateway does, with the keys that signed them at
hand.
"""

import time
from collections.abc import Callable
from typing import Any

from security.errors import MalformedDocument, TokenRejected
from security.oauth.access_token import AccessToken, ClaimRules, parse_access_token
from security.oauth.algorithms import ALGORITHMS
from security.oauth.jws import RULE_CHANGING_MEMBERS, Jws, is_signed_by, parse_jws
from security.oauth.signing_keys import SigningKeys


class OwnTokens:
    """Validates what one authority has issued."""

    def __init__(
        self,
        keys: SigningKeys,
        rules: ClaimRules,
        is_revoked: Callable[[AccessToken], bool],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._rules = rules
        self._is_revoked = is_revoked
        self._clock = clock

    def validate(self, token: str) -> AccessToken:
        """The token, if it is good now. Raises: TokenRejected."""
        jws = self._verify(token)
        accepted = parse_access_token(jws.payload(), str(jws.header["kid"]), self._rules, self._clock())
        if self._is_revoked(accepted):
            raise TokenRejected("the token was revoked")
        return accepted

    def claims(self, token: str) -> dict[str, Any]:
        """The claims of a token that `validate` accepted."""
        return self._verify(token).payload()

    def _verify(self, token: str) -> Jws:
        try:
            jws = parse_jws(token)
        except MalformedDocument as error:
            raise TokenRejected(f"the token{error}") from None
        header = jws.header
        if header.get("typ") != "at+jwt" or any(name in header for name in ("jwk", *RULE_CHANGING_MEMBERS)):
            raise TokenRejected("the token's header is not ours")
        for key in self._keys.all:
            is_named = (
                key.kid == header.get("kid") and header.get("alg") == key.algorithm and key.algorithm in ALGORITHMS
            )
            if is_named and is_signed_by(jws, key.key, key.algorithm):
                return jws
        raise TokenRejected("the token's signature does not hold")
