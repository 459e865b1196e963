"""Keys and certificates at their places below the state directory.

    tls/         our own certificate authority and server certificate, where none is configured
    authority/   signing/signing-*.pem

Everything is made where it is missing, once, whoever comes first; what is there is checked and left alone.
"""

import ssl
from pathlib import Path

import structlog
from cryptography import x509

from appliance.authority.addresses import certificate_names
from appliance.config import Configuration
from appliance.messages.control import RenewCertificate
from security.errors import KeyUnusable
from security.oauth.signing_keys import SigningKeys
from security.tls import (
    TlsIdentity,
    build_server_context,
    find_authorities,
    provision_identity,
    reload_identity,
    verify_identity,
)

SIGNING_DIRECTORY = "signing"


log = structlog.get_logger(__name__)


def find_tls_identity(configuration: Configuration) -> TlsIdentity:
    """Where certificate and key are, configured or our own. Nothing is made or checked."""
    tls = configuration.tls
    if tls.certificate is not None and tls.key is not None:
        ca_certificate = None if tls.ca_certificate is None else Path(tls.ca_certificate)
        return TlsIdentity(Path(tls.certificate), Path(tls.key), ca_certificate)
    directory = configuration.state_path / "tls"
    return TlsIdentity(directory / "server.pem", directory / "server.key", directory / "ca.pem")


def build_listener_context(configuration: Configuration) -> ssl.SSLContext:
    """The TLS context of any of our listeners. Raises: KeyUnusable."""
    tls = configuration.tls
    return build_server_context(
        find_tls_identity(configuration),
        minimum_version=tls.minimum_version,
        asks_clients=tls.client_certificates,
        client_authorities=None if tls.client_ca_certificate is None else Path(tls.client_ca_certificate),
    )


def renew_certificate(context: ssl.SSLContext, message: RenewCertificate) -> bool:
    """Put in force what the supervisor sent; what cannot be used is reported, and the old certificate goes on: False."""
    try:
        reload_identity(context, message.certificate, message.key, message.client_authorities)
    except KeyUnusable as error:
        log.error("certificate_not_used", reason=str(error))
        return False
    log.info("certificate_renewed")
    return True


def find_client_authorities(message: RenewCertificate) -> tuple[x509.Certificate, ...]:
    """Who signs clients' certificates, of what the supervisor has read and checked just now."""
    return find_authorities(x509.load_pem_x509_certificates(message.client_authorities))


def provision_tls(configuration: Configuration) -> TlsIdentity:
    """Check the configured certificate, or make and renew our own. Safe in several processes at once.

    Raises: KeyUnusable, naming the file.
    """
    if configuration.tls.certificate is None:
        return provision_identity(configuration.state_path / "tls", certificate_names(configuration))
    identity = find_tls_identity(configuration)
    verify_identity(identity)
    return identity


def load_signing_keys(configuration: Configuration) -> SigningKeys:
    """The token signing keys, the first one made where there is none.

    Raises: KeyUnusable, naming the file.
    """
    directory = configuration.state_path / "authority" / SIGNING_DIRECTORY
    return SigningKeys.load_or_create(directory, algorithm=configuration.authority.signing_algorithm)
