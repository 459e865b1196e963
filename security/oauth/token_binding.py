"""What a new token is bound to: the key of a DPoP proof (RFC 9449), or else the certificate of the connection (RFC 8705)."""

from collections.abc import Callable

from security.errors import TokenRejected
from security.oauth.dpop import PROOF_LIFETIME_S, normalize_url, thumbprint_of_certificate, verify_proof
from security.oauth.dpop_nonces import DpopNonces
from security.oauth.errors import InvalidDpopProof, UseDpopNonce
from security.oauth.minting import Binding
from security.oauth.token_request import ParsedRequest
from security.policy.replay import ReplayMemory


class TokenBinder:
    """Takes each proof once."""

    def __init__(
        self, issuer: str, *, nonces: DpopNonces | None, used: ReplayMemory, clock: Callable[[], float]
    ) -> None:
        """
        Args:
            nonces: those that proofs must repeat; None to ask for none.
            used: the proofs that this authority has seen.
        """
        self._issuer = issuer
        self._nonces = nonces
        self._clock = clock
        self._used = used

    def bind(self, parsed: ParsedRequest) -> Binding | None:
        """What a request shows; None if it shows neither. Raises: InvalidDpopProof, UseDpopNonce."""
        if parsed.proofs:
            url = normalize_url(self._issuer + parsed.path)
            try:
                proof = verify_proof(parsed.proofs, method="POST", urls=frozenset({url}), now=self._clock())
            except TokenRejected as fault:
                raise InvalidDpopProof(str(fault)) from None
            if self._nonces is not None and not self._nonces.is_good(proof.nonce):
                raise UseDpopNonce("The proof needs the nonce in DPoP-Nonce")
            if not self._used.use(proof.digest, PROOF_LIFETIME_S):
                raise InvalidDpopProof("jti: the proof was used before")
            return Binding("jkt", proof.thumbprint)
        if parsed.certificate is not None:
            return Binding("x5t#S256", thumbprint_of_certificate(parsed.certificate))
        return None
