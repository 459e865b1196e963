"""X.509: our own certificate authority and the server certificates it issues.

Profile: P-256 with SHA-256 throughout, which is what every TLS client and FIPS mode accepts. The authority may sign server
certificates only (path length 0); a server certificate names its hosts in subjectAltName alone (RFC 6125 section 6.4.4) and carries
the extensions that OpenSSL's strict mode asks for (RFC 5280 section 4.2.1).

Pure: objects in, objects out; files are `tls`'s.
"""

import datetime
import ipaddress
from collections.abc import Iterable

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from security.errors import KeyUnusable

CA_LIFETIME = datetime.timedelta(days=3650)
SERVER_LIFETIME = datetime.timedelta(days=397)
RENEWAL_MARGIN = datetime.timedelta(days=60)
"""A certificate with less time left than this is replaced at the next start."""
_BACKDATING = datetime.timedelta(hours=1)
"""Clients' clocks may be behind ours."""

_SIGNING_ONLY = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
_CA_ONLY = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def issue_ca(key: EllipticCurvePrivateKey, now: datetime.datetime) -> x509.Certificate:
    """A self-signed authority certificate for `key`."""
    serial = x509.random_serial_number()
    name = _name(f"Casemate appliance CA {serial & 0xFFFFFFFF:08x}")
    public_key = key.public_key()
    return (
        _builder(name, name, public_key, serial, now, CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_CA_ONLY, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .sign(key, SHA256())
    )


def issue_server_certificate(
    ca: x509.Certificate,
    ca_key: EllipticCurvePrivateKey,
    public_key: EllipticCurvePublicKey,
    names: Iterable[str],
    now: datetime.datetime,
) -> x509.Certificate:
    """A server certificate for DNS names and addresses, signed by our authority and never outliving it.

    Raises: KeyUnusable if a name is neither a DNS name nor an address.
    """
    general_names = [parse_general_name(name) for name in names]
    lifetime = min(SERVER_LIFETIME, ca.not_valid_after_utc - now)
    return (
        _builder(_name("Casemate server"), ca.subject, public_key, x509.random_serial_number(), now, lifetime)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_SIGNING_ONLY, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(general_names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, SHA256())
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: EllipticCurvePublicKey,
    serial: int,
    now: datetime.datetime,
    lifetime: datetime.timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(now - _BACKDATING)
        .not_valid_after(now + lifetime)
    )


def parse_general_name(name: str) -> x509.GeneralName:
    """The subjectAltName entry for a DNS name (ASCII, wildcards in the leftmost label) or an IP address.

    Raises: KeyUnusable.
    """
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    labels = name.removeprefix("*.").split(".")
    if len(name) > 253 or not all(map(_is_dns_label, labels)):
        raise KeyUnusable(f"{name!r} is neither a DNS name nor an IP address: no certificate can name it")
    return x509.DNSName(name.lower())


def may_sign_others(certificate: x509.Certificate) -> bool:
    """True for the certificate of an authority (RFC 5280 section 4.2.1.9)."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _is_dns_label(label: str) -> bool:
    return (
        0 < len(label) <= 63
        and label.isascii()
        and label.replace("-", "a").replace("_", "a").isalnum()
        and not label.startswith("-")
        and not label.endswith("-")
    )


def names_of(certificate: x509.Certificate) -> frozenset[str]:
    """The DNS names and addresses in subjectAltName; empty if there is none."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    addresses = {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    return frozenset(names.get_values_for_type(x509.DNSName)) | addresses


def needs_renewal(certificate: x509.Certificate, names: Iterable[str], now: datetime.datetime) -> bool:
    """True when the certificate expires soon, is not yet valid, or does not name exactly `names`."""
    wanted = frozenset(str(parse_general_name(name).value) for name in names)
    return (
        certificate.not_valid_after_utc - now < RENEWAL_MARGIN
        or now < certificate.not_valid_before_utc
        or names_of(certificate) != wanted
    )
