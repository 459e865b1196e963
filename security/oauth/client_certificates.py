"""Clients that are known by the certificate of their connection (RFC 8705 section 2), of which TLS has seen that they have its
key.

A certificate that comes here is an untrusted one to which its client has the key: that TLS let it in says that some authority in
`tls.client_ca_certificate` vouches for it, or that it stands there itself, and nothing of whose it is.
"""

import hmac
import ipaddress
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from security.clients import ALTERNATIVE_NAMES, parse_subject
from security.errors import MalformedDocument
from security.oauth.client_keys import find_certificates, parse_client_keys


def is_registered(certificate: bytes, jwks: str | None) -> bool:
    """True if it is the very certificate of a client's registration (self_signed_tls_client_auth)."""
    try:
        registered = find_certificates(parse_client_keys(jwks or ""))
    except MalformedDocument:
        return False
    return any(hmac.compare_digest(one, certificate) for one in registered)


def is_issued(certificate: bytes, authorities: Sequence[x509.Certificate], now: float) -> bool:
    """True if one of the client authorities issued it, and not merely if TLS knows it: another client's self-signed one is
    known too.
    """
    leaf = x509.load_der_x509_certificate(certificate)
    if not leaf.not_valid_before_utc.timestamp() <= now <= leaf.not_valid_after_utc.timestamp():
        return False
    for authority in authorities:
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
    if not colon or kind not in ALTERNATIVE_NAMES:
        return leaf.subject == parse_subject(registered)
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
