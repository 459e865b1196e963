"""Which client a request is from: every method of RFC 6749, RFC 7523 and RFC 8705, each for the clients that are registered for it.
 A client authenticates by the one method of its registration (a secret, by either of its two ways); what comes by another
fails, always with the same words. An unknown client costs the same work as a wrong secret.
"""

import hashlib
import hmac
import ipaddress
import time
from collections.abc import Callable, Sequence
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from security.clients import Client, is_secret_of
from security.errors import MalformedDocument, TokenRejected
from security.oauth.algorithms import FOREIGN_ALGORITHMS, algorithms_of
from security.oauth.client_keys import find_certificates, parse_client_keys
from security.oauth.dpop import is_number
from security.oauth.errors import AuthenticationFailed
from security.oauth.jws import RULE_CHANGING_MEMBERS, Jws, is_signed_by, parse_jws
from security.oauth.key_set import parse_public_key
from security.oauth.token_request import ParsedRequest
from security.policy.replay import ReplayMemory

AUTH_METHODS = (
    "client_secret_basic",
    "client_secret_post",
    "private_key_jwt",
    "tls_client_auth",
    "self_signed_tls_client_auth",
    "none",
)
ASSERTION_LIFETIME_S = 300
"""An assertion may be good no longer than this from now on."""
SKEW_S = 10
MAX_ID_CHARS = 256
_NO_HASH = bytes(32)
_ASSERTION_TYPES = ("", "jwt", "client-authentication+jwt")


class ClientAuthentication:
    """Checks clients' credentials for one authority."""

    def __init__(
        self,
        credentials_key: bytes,
        audiences: frozenset[str],
        *,
        client_authorities: Sequence[x509.Certificate] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            audiences: what an assertion may be for: the issuer and the addresses of its endpoints.
            client_authorities: who signs the certificates of clients with `tls_client_auth`.
        """
        self._credentials_key = credentials_key
        self._audiences = audiences
        self._authorities = client_authorities
        self._clock = clock
        self._used = ReplayMemory(clock=clock)

    def authenticate(self, parsed: ParsedRequest, client: Client | None) -> Client:
        """The client, if it is who it says.

        Args:
            client: the client of the id that the request claims, if there is one.
        Raises: AuthenticationFailed.
        """
        credentials = parsed.credentials
        if credentials is None:
            raise AuthenticationFailed
        if credentials.method in ("client_secret_basic", "client_secret_post"):
            holds = self._has_secret(client, credentials.client_id, credentials.secret)
        elif client is None:
            raise AuthenticationFailed
        elif credentials.method == "private_key_jwt":
            holds = client.auth_method == "private_key_jwt" and self._has_key(client, credentials.secret)
        else:
            holds = client.auth_method == "none" or self._has_certificate(client, parsed.certificate)
        if client is None or client.is_disabled or not holds:
            raise AuthenticationFailed
        return client

    def _has_secret(self, client: Client | None, client_id: str, secret: str) -> bool:
        stored = None if client is None or client.auth_method != "client_secret" else client.secret_hash
        return is_secret_of(self._credentials_key, client_id, stored or _NO_HASH, secret) and stored is not None

    def _has_key(self, client: Client, assertion: str) -> bool:
        """RFC 7523 section 3."""
        try:
            jws = parse_jws(assertion)
            claims = jws.payload()
            self._verify_signature(client, jws)
            self._verify_claims(client, claims)
        except (MalformedDocument, TokenRejected):
            return False
        digest = hashlib.sha256(f"{client.client_id} {claims['jti']}".encode()).digest()
        return self._used.use(digest, ASSERTION_LIFETIME_S + 2 * SKEW_S)

    def _verify_signature(self, client: Client, jws: Jws) -> None:
        header = jws.header
        if any(name in header for name in ("jwk", *RULE_CHANGING_MEMBERS)):
            raise TokenRejected("the assertion's header brings a key")
        if str(header.get("typ", "")).lower() not in _ASSERTION_TYPES:
            raise TokenRejected("the assertion is of another type")
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in FOREIGN_ALGORITHMS:
            raise TokenRejected("the assertion's algorithm is not supported")
        for entry in parse_client_keys(client.jwks or ""):
            if kid is not None and entry.get("kid") is not None and entry["kid"] != kid:
                continue
            if entry.get("use", "sig") != "sig" or entry.get("alg", algorithm) != algorithm:
                continue
            try:
                key = parse_public_key(entry)
            except MalformedDocument:
                continue
            if algorithm in algorithms_of(key) and is_signed_by(jws, key, algorithm):
                return
        raise TokenRejected("the assertion's signature does not hold")

    def _verify_claims(self, client: Client, claims: dict[str, Any]) -> None:
        now, expires_at = self._clock(), claims.get("exp")
        if claims.get("iss") != client.client_id or claims.get("sub") != client.client_id:
            raise TokenRejected("iss and sub must be the client")
        audience = claims.get("aud")
        audiences = [audience] if isinstance(audience, str) else audience
        if not isinstance(audiences, list) or not any(
            one in self._audiences for one in audiences if isinstance(one, str)
        ):
            raise TokenRejected("aud: the assertion is for somebody else")
        if not is_number(expires_at) or not now - SKEW_S < expires_at <= now + ASSERTION_LIFETIME_S + SKEW_S:
            raise TokenRejected("exp: the assertion has expired, or lives too long")
        for name in ("nbf", "iat"):
            value = claims.get(name, 0)
            if not is_number(value) or value > now + SKEW_S:
                raise TokenRejected(f"{name}: the assertion is not valid yet")
        proof_id = claims.get("jti")
        if not isinstance(proof_id, str) or not 0 < len(proof_id) <= MAX_ID_CHARS:
            raise TokenRejected("jti: expected the assertion's own id")

    def _has_certificate(self, client: Client, certificate: bytes | None) -> bool:
        """RFC 8705 section 2. The TLS layer has seen that the client has the certificate's key."""
        if certificate is None:
            return False
        if client.auth_method == "self_signed_tls_client_auth":
            return self._is_registered(client, certificate)
        if client.auth_method == "tls_client_auth" and client.tls_subject is not None:
            return self._is_issued(certificate) and names_subject(certificate, client.tls_subject)
        return False

    def _is_registered(self, client: Client, certificate: bytes) -> bool:
        try:
            registered = find_certificates(parse_client_keys(client.jwks or ""))
        except MalformedDocument:
            return False
        return any(hmac.compare_digest(one, certificate) for one in registered)

    def _is_issued(self, certificate: bytes) -> bool:
        """Issued by one of the client authorities, and not merely known to TLS: another client's self-signed one is that too."""
        leaf = x509.load_der_x509_certificate(certificate)
        now = self._clock()
        if not leaf.not_valid_before_utc.timestamp() <= now <= leaf.not_valid_after_utc.timestamp():
            return False
        for authority in self._authorities:
            try:
                leaf.verify_directly_issued_by(authority)
            except (ValueError, TypeError, InvalidSignature):
                continue
            return True
        return False


def names_subject(certificate: bytes, registered: str) -> bool:
    """True if a certificate is for this name: its subject, or with a prefix one of its alternative names (RFC 8705 section
    2.1.2).
    """
    leaf = x509.load_der_x509_certificate(certificate)
    kind, colon, value = registered.partition(":")
    if not colon or kind not in ("dns", "uri", "ip", "email"):
        return leaf.subject.rfc4514_string() == registered
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    match kind:
        case "dns":
            return value.lower() in (name.lower() for name in names.get_values_for_type(x509.DNSName))
        case "uri":
            return value in names.get_values_for_type(x509.UniformResourceIdentifier)
        case "email":
            return value in names.get_values_for_type(x509.RFC822Name)
        case _:
            try:
                return ipaddress.ip_address(value) in names.get_values_for_type(x509.IPAddress)
            except ValueError:
                return False
