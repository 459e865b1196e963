"""The gateway's check of what a request brings: the validator of `security` in the shape that the gateway asks for.

Static keys are asked of policy, at every request; access tokens are validated here, in full. Neither is believed while
policy is silent, as it may have revoked what we would let in.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import structlog

from appliance.authority.addresses import certificate_names, issuer_of, local_address, resource_of
from appliance.authority.credentials import find_tls_identity
from appliance.authority.foreign_issuers import ForeignIssuer
from appliance.config import Configuration
from appliance.gateway.api.protected_resource import ProtectedResource
from appliance.gateway.identity import (
    NonceRequired,
    Presented,
    Principal,
    ProofRefused,
    TokenIssuerUnavailable,
    TokenRefused,
)
from appliance.messages.policy import KeyHolder
from security.errors import KeysUnavailable, MalformedDocument, TokenRejected
from security.oauth.access_token import AccessToken
from security.oauth.algorithms import FOREIGN_ALGORITHMS
from security.oauth.dpop import (
    PROOF_LIFETIME_S,
    normalize_url,
    thumbprint_of_certificate,
    verify_proof,
)
from security.oauth.dpop_nonces import DpopNonces, MemoryStart
from security.oauth.https_source import HttpsJwksSource
from security.oauth.jws import parse_jws
from security.oauth.key_ring import KeyRing
from security.oauth.metadata import KEY_SET_PATH
from security.oauth.resource import AccessTokenValidator
from security.oauth.revocations import RevocationList
from security.scopes import GRANTED_SCOPES, Role, Scope, parse_scopes
from security.static_keys import digest_static_key, is_static_key

STATIC_KEY_ISSUER = "casemate:static-keys"
"""What stands for an issuer in records of requests by a static key."""


log = structlog.get_logger(__name__)


class PolicyKnowledge(Protocol):
    """What is asked of the gateway's `peers.policy.PolicyPeer`."""

    revocations: RevocationList
    nonce_key: bytes | None
    """Of DPoP nonces; None until policy has told it."""
    memory: MemoryStart
    """Of what was used once."""

    def verify_fresh(self) -> None:
        """Raises: PeerUnavailable."""

    async def check_key(self, digest: bytes, address: str) -> KeyHolder | None:
        """Raises: PeerUnavailable."""

    async def use_once(self, digest: bytes, lifetime_s: int) -> bool:
        """Raises: PeerUnavailable."""


@dataclass(frozen=True, kw_only=True)
class PossessionRules:
    """What a bound token is checked against."""

    origins: frozenset[str]
    """Scheme, host and port that clients may reach this gateway by."""
    binds_privileged: bool
    """Roles but `user` need a bound token."""
    nonce_lifetime_s: int = 0
    """How long a nonce is good; 0 asks for none."""


class AuthorityTokenCheck:
    """Satisfies `appliance.gateway.identity.TokenCheck`."""

    def __init__(
        self,
        keys: KeyRing,
        validator: AccessTokenValidator,
        rules: PossessionRules | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._validator = validator
        self._rules = rules or PossessionRules(origins=frozenset(), binds_privileged=False)
        self._clock = clock
        self._policy: PolicyKnowledge | None = None
        self._foreign: dict[str, ForeignIssuer] = {}

    def trust(self, name: str, issuer: ForeignIssuer) -> None:
        """Accept the tokens of an issuer elsewhere as well, which they call by this name."""
        self._foreign[name] = issuer

    async def renew_keys(self, name: str, data: bytes) -> None:
        """The file of an issuer's keys is another. One that is not to be believed is reported, and changes nothing."""
        try:
            await self._foreign[name].renew_keys(data)
        except KeysUnavailable as error:
            log.warning("issuer_keys_not_used", issuer=name, reason=str(error))
            return
        log.info("issuer_keys_renewed", issuer=name)

    def use_policy(self, policy: PolicyKnowledge) -> None:
        """Ask this one from now on. Without it nothing is revoked and no static key is good: for tests of the rest."""
        self._policy = policy

    async def prepare(self) -> None:
        """Fetch the issuer's keys, so that the first request need not wait. Try again later when it fails.

        Raises: TokenIssuerUnavailable.
        """
        try:
            await self._keys.load()
        except KeysUnavailable as error:
            raise TokenIssuerUnavailable(str(error)) from error

    async def __call__(self, presented: Presented) -> Principal:
        """Validate in full.

        Raises: TokenRefused, TokenIssuerUnavailable, PeerUnavailable.
        """
        if self._policy is not None:
            self._policy.verify_fresh()
        if is_static_key(presented.token):
            return await self._check_key(presented)
        try:
            accepted = await self._choose(presented.token).validate(presented.token)
        except TokenRejected as error:
            raise TokenRefused(str(error)) from error
        except KeysUnavailable as error:
            raise TokenIssuerUnavailable(str(error)) from error
        self._verify_not_revoked(accepted)
        nonce = await self._verify_possession(accepted, presented)
        return _principal(accepted, nonce)

    def _choose(self, token: str) -> AccessTokenValidator:
        """Whose token it says it is. Nothing is believed of that: each validator checks the issuer for itself."""
        if not self._foreign:
            return self._validator
        try:
            issuer = parse_jws(token).payload().get("iss")
        except (MalformedDocument, TokenRejected):
            return self._validator
        found = self._foreign.get(issuer) if isinstance(issuer, str) else None
        return self._validator if found is None else found.validator

    async def _verify_possession(self, token: AccessToken, presented: Presented) -> str:
        """Whoever presents a bound token must have its key (RFC 9449 section 7.1) or certificate (RFC 8705 section 3).

        Returns: the nonce for the next proof; empty where none are asked for.
        """
        nonce = ""
        if token.key_thumbprint and presented.scheme != "dpop":
            raise TokenRefused("the token is bound to a key: it must come with the scheme DPoP and a proof")
        if presented.scheme == "dpop":
            nonce = await self._verify_proof(token, presented)
        if token.certificate_thumbprint:
            shown = None if presented.certificate is None else thumbprint_of_certificate(presented.certificate)
            if shown != token.certificate_thumbprint:
                raise TokenRefused("the token is bound to another client certificate")
        if self._rules.binds_privileged and token.role is not Role.USER and not token.is_bound:
            raise TokenRefused("the role needs a token that is bound to a key or certificate")
        return nonce

    async def _verify_proof(self, token: AccessToken, presented: Presented) -> str:
        if not token.key_thumbprint:
            raise TokenRefused("the token is not bound to a key: it must come with the scheme Bearer")
        urls = frozenset(normalize_url(origin + presented.path) for origin in self._rules.origins)
        try:
            proof = verify_proof(
                presented.proofs, method=presented.method, urls=urls, now=self._clock(), token=presented.token
            )
        except TokenRejected as error:
            raise ProofRefused(str(error)) from error
        if proof.thumbprint != token.key_thumbprint:
            raise ProofRefused("the proof is by another key than the token's")
        nonces = self._find_nonces(proof.issued_at)
        if nonces is not None and not nonces.is_good(proof.nonce):
            raise NonceRequired(nonces.current())
        if self._policy is not None and not await self._policy.use_once(proof.digest, PROOF_LIFETIME_S):
            raise ProofRefused("jti: the proof was used before")
        return "" if nonces is None else nonces.current()

    def _find_nonces(self, issued_at: float) -> DpopNonces | None:
        """RFC 9449 section 9; the key is policy's, so that every worker takes what any of them gave.

        Asked for, whatever the configuration, where a proof is older than policy's memory: nobody knows whether it was used.
        """
        if self._policy is None:
            return None
        lifetime_s = self._rules.nonce_lifetime_s
        if not lifetime_s and self._policy.memory.knows(issued_at):
            return None
        lifetime_s = lifetime_s or PROOF_LIFETIME_S
        if self._policy.nonce_key is None:
            raise TokenIssuerUnavailable("policy has not told the key of nonces yet")
        return DpopNonces(self._policy.nonce_key, lifetime_s, clock=self._clock)

    def _verify_not_revoked(self, token: AccessToken) -> None:
        if self._policy is not None and self._policy.revocations.is_revoked(token):
            raise TokenRefused("the token was revoked")

    async def _check_key(self, presented: Presented) -> Principal:
        holder = None
        if self._policy is not None and presented.scheme == "bearer":
            holder = await self._policy.check_key(digest_static_key(presented.token), presented.address)
        if holder is None:
            raise TokenRefused("the key is not valid, or not from this address")
        try:
            scopes = parse_scopes(holder.scope)
        except MalformedDocument as error:
            raise TokenRefused("the key's client has no usable scope") from error
        return Principal(
            client_id=holder.client_id,
            subject=holder.client_id,
            tenant=holder.tenant,
            role=holder.role,
            scopes=frozenset(scope.value for scope in scopes),
            issuer=STATIC_KEY_ISSUER,
            key_id="",
            token_id=holder.key_id,
            expires_at=holder.expires_at,
        )


@lru_cache(maxsize=256)
def _names_of(scopes: frozenset[Scope]) -> frozenset[str]:
    return frozenset(scope.value for scope in scopes)


def _principal(accepted: AccessToken, nonce: str) -> Principal:
    return Principal(
        client_id=accepted.client_id,
        subject=accepted.subject,
        tenant=accepted.tenant,
        role=accepted.role.value,  # Plain text: what goes into records takes no enumerations.
        scopes=_names_of(accepted.scopes),
        issuer=accepted.issuer,
        key_id=accepted.kid,
        token_id=accepted.jti,
        expires_at=accepted.expires_at,
        is_registered=accepted.is_registered,
        is_program=accepted.is_program,
        acting_client=accepted.client_id if accepted.actors else "",
        dpop_nonce=nonce,
    )


def build_token_check(configuration: Configuration) -> AuthorityTokenCheck:
    """The check of a gateway worker: keys from our own authority, over TLS to the address where it listens here.

    The certificate is checked for the issuer's name, whatever address is connected to. Nothing is fetched yet.

    Raises: StartRefused if issuer or resource are not known from the configuration.
    """
    issuer = issuer_of(configuration)
    authority = configuration.authority
    # Without an override of the port we cannot know a better one; a listener on port 0 needs `authority.issuer` anyway.
    connect_to = (local_address(authority.host), authority.port) if authority.port else None
    source = HttpsJwksSource(
        issuer + KEY_SET_PATH,
        find_tls_identity(configuration).ca_certificate,
        connect_to=connect_to,
        minimum_version=configuration.tls.minimum_version,
    )
    keys = KeyRing(source)
    rules = PossessionRules(
        origins=_find_origins(configuration),
        binds_privileged=configuration.mode == "production",
        nonce_lifetime_s=authority.dpop_nonce_lifetime_s,
    )
    validator = AccessTokenValidator(keys, issuer=issuer, audience=resource_of(configuration))
    check = AuthorityTokenCheck(keys, validator, rules)
    for trusted in configuration.issuers:
        check.trust(trusted.issuer, ForeignIssuer(trusted, configuration.tls.minimum_version))
    return check


def describe_resource(configuration: Configuration) -> ProtectedResource:
    """What the gateway says of itself to whoever has no token (RFC 9728). Raises: StartRefused."""
    # AD FS names itself by http: that is no identifier of an authorization server (RFC 8414 section 2).
    elsewhere = (one.issuer for one in configuration.issuers if one.issuer.startswith("https://"))
    return ProtectedResource(
        resource=resource_of(configuration),
        authorization_servers=(issuer_of(configuration), *elsewhere),
        scopes_supported=tuple(scope.value for scope in GRANTED_SCOPES),
        dpop_signing_alg_values_supported=FOREIGN_ALGORITHMS,
        tls_client_certificate_bound_access_tokens=configuration.tls.client_certificates,
    )


def _find_origins(configuration: Configuration) -> frozenset[str]:
    """The resource's own address, and the gateway's port under every name that its certificate bears."""
    port = configuration.gateway.port
    names = (f"[{name}]" if ":" in name else name for name in certificate_names(configuration))
    return frozenset({resource_of(configuration), *(f"https://{name}:{port}" for name in names if port)})
