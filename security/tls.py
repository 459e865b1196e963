"""The files behind TLS, and contexts made from them.

Either the operator configures a certificate and its key, which are checked and never touched, or the folder holds an own
certificate authority:

    ca.pem      the authority's certificate: what clients are given to trust
    ca.key      its key, 0600
    server.pem  the server's certificate, then the authority's
    server.key  its key, 0600

The server certificate is renewed when it expires soon, when the names change, or when it is not the authority's; clients
that trust ca.pem notice nothing. The authority itself is never replaced silently: when it expires soon that is an error
which says what to do, as every client must be given the new one.
"""

import datetime
import fcntl
import os
import ssl
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from security.certificates import RENEWAL_MARGIN, issue_ca, issue_server_certificate, may_sign_others, needs_renewal
from security.errors import KeyUnusable
from security.keys import (
    encode_private_key,
    generate_p256,
    load_or_create_private_key,
    load_private_file,
    load_private_key,
    make_private_directory,
    write_replacing,
)

MAX_CERTIFICATE_FILE_BYTES = 1 << 20
MinimumVersion = Literal["1.2", "1.3"]


class TlsIdentity(msgspec.Struct, frozen=True):
    """Where a server's certificate and key are, and what its clients must trust."""

    certificate: Path
    key: Path
    ca_certificate: Path | None
    """None: the certificate is from an authority that the machine trusts anyway."""


def provision_identity(directory: Path, names: Iterable[str], now: datetime.datetime | None = None) -> TlsIdentity:
    """Make or renew what is missing in `directory`; safe to call from several processes at once.

    Raises: KeyUnusable, naming the file.
    """
    names = tuple(names)
    now = now or datetime.datetime.now(datetime.UTC)
    identity = TlsIdentity(directory / "server.pem", directory / "server.key", directory / "ca.pem")
    make_private_directory(directory)
    with _locked(directory / ".lock"):
        ca, ca_key = _provision_ca(directory, now)
        if _server_needs_renewal(identity, ca, names, now):
            key = generate_p256()
            certificate = issue_server_certificate(ca, ca_key, key.public_key(), names, now)
            # (1) key, (2) certificate: a crash in between leaves a pair that does not match, which the next call replaces.
            write_replacing(identity.key, encode_private_key(key))
            chain = certificate.public_bytes(Encoding.PEM) + ca.public_bytes(Encoding.PEM)
            write_replacing(identity.certificate, chain, mode=0o644)
    return identity


def _provision_ca(directory: Path, now: datetime.datetime) -> tuple[x509.Certificate, EllipticCurvePrivateKey]:
    path, key_path = directory / "ca.pem", directory / "ca.key"
    if path.exists() and not key_path.exists():
        raise KeyUnusable(f"{key_path} is missing and {path} is there: restore the key, or remove both to start anew")
    key = load_or_create_private_key(key_path, generate_p256)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise KeyUnusable(f"{key_path} holds a key of another kind: expected P-256")
    if not path.exists():
        write_replacing(path, issue_ca(key, now).public_bytes(Encoding.PEM), mode=0o644)
    (certificate, *_rest) = load_certificates(path)
    if _encode_public(certificate.public_key()) != _encode_public(key.public_key()):
        raise KeyUnusable(f"{key_path} is not the key of {path}")
    if certificate.not_valid_after_utc - now < RENEWAL_MARGIN:
        raise KeyUnusable(
            f"{path} expires on {certificate.not_valid_after_utc:%Y-%m-%d}: remove {path} and {key_path} to make a new "
            "certificate authority, then give its ca.pem to every client"
        )
    return certificate, key


def _server_needs_renewal(
    identity: TlsIdentity, ca: x509.Certificate, names: Iterable[str], now: datetime.datetime
) -> bool:
    if not (identity.certificate.exists() and identity.key.exists()):
        return True
    (certificate, *_rest) = load_certificates(identity.certificate)
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        return True
    key = load_private_key(identity.key)
    mismatch = _encode_public(certificate.public_key()) != _encode_public(key.public_key())
    return mismatch or needs_renewal(certificate, names, now)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an advisory lock, so that processes that start together make one authority and not two."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise KeyUnusable(f"{path} cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def load_certificates(path: Path) -> list[x509.Certificate]:
    """The certificates of a PEM file, at least one.

    Raises: KeyUnusable.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CERTIFICATE_FILE_BYTES + 1)
        if len(data) > MAX_CERTIFICATE_FILE_BYTES:
            raise KeyUnusable(f"{path} is larger than {MAX_CERTIFICATE_FILE_BYTES} bytes: not a certificate")
        return x509.load_pem_x509_certificates(data)
    except OSError as error:
        raise KeyUnusable(f"{path} cannot be read: {error.strerror}") from error
    except ValueError:
        raise KeyUnusable(f"{path} is not a PEM certificate") from None


def verify_identity(identity: TlsIdentity, now: datetime.datetime | None = None) -> None:
    """Check that certificate and key can be used: readable, the key private, of one pair, valid now.

    Raises: KeyUnusable, naming the file.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    (certificate, *_rest) = load_certificates(identity.certificate)
    try:
        key = load_pem_private_key(load_private_file(identity.key), password=None)
    except (ValueError, TypeError):
        raise KeyUnusable(f"{identity.key} is not an unencrypted PEM private key") from None
    if _encode_public(certificate.public_key()) != _encode_public(key.public_key()):
        raise KeyUnusable(f"{identity.key} is not the key of {identity.certificate}")
    if now > certificate.not_valid_after_utc:
        raise KeyUnusable(f"{identity.certificate} expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    if now < certificate.not_valid_before_utc:
        raise KeyUnusable(
            f"{identity.certificate} is valid only from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC: "
            "is the clock right?"
        )
    if identity.ca_certificate is not None:
        load_certificates(identity.ca_certificate)


def _encode_public(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def build_server_context(
    identity: TlsIdentity,
    *,
    minimum_version: MinimumVersion = "1.3",
    asks_clients: bool = False,
    client_authorities: Path | None = None,
) -> ssl.SSLContext:
    """A context for a listener: HTTP/1.1 only, no compression, no renegotiation.

    Args:
        asks_clients: ask clients for a certificate. One that is shown must be signed by one of `client_authorities`, or be itself
            among them (a client's self-signed one); a client that shows none is served as well.
        client_authorities: a PEM file; without it no certificate is accepted.
    Raises: KeyUnusable, as `verify_identity` does.
    """
    verify_identity(identity)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _restrict(context, minimum_version)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    try:
        context.load_cert_chain(identity.certificate, identity.key)
    except (ssl.SSLError, OSError) as error:
        raise KeyUnusable(f"{identity.certificate} with {identity.key} cannot serve TLS: {error}") from error
    if asks_clients:
        context.verify_mode = ssl.CERT_OPTIONAL
        # A client's self-signed certificate is an anchor that is no authority.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if client_authorities is not None:
            load_certificates(client_authorities)
            context.load_verify_locations(client_authorities)
    return context


def reload_identity(context: ssl.SSLContext, certificate: bytes, key: bytes, client_authorities: bytes = b"") -> None:
    """Serve new connections of a live context with another certificate.

    By pipes, as `ssl` loads from files only, and no file of ours shall hold another's key.

    Raises: KeyUnusable; the context goes on with what it had.
    """
    try:
        # A context into which half a pair was loaded serves nothing any more: a pair that does not fit must not get that far.
        for target in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), context):
            with _as_file(certificate) as certificate_path, _as_file(key) as key_path:
                target.load_cert_chain(certificate_path, key_path)
            if client_authorities and context.verify_mode is not ssl.CERT_NONE:
                target.load_verify_locations(cadata=client_authorities.decode("ascii"))
    except (ssl.SSLError, OSError, ValueError) as error:
        raise KeyUnusable(f"the new certificate cannot serve TLS: {error}") from error


@contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """The name of a file that gives these bytes, once."""
    reading, writing = os.pipe()
    try:
        # A pipe holds 64 KiB; what is larger is written beside the reader.
        writer = threading.Thread(target=_write_all, args=(writing, data), daemon=True)
        writer.start()
        yield f"/proc/self/fd/{reading}"
        writer.join(5)
    finally:
        os.close(reading)


def _write_all(descriptor: int, data: bytes) -> None:
    with suppress(OSError), open(descriptor, "wb") as pipe:
        pipe.write(data)


def find_authorities(certificates: Iterable[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    """Those that may sign others; a client's self-signed one is none, as `client_keys` sees to."""
    return tuple(certificate for certificate in certificates if may_sign_others(certificate))


def build_client_context(ca_certificate: Path | None, *, minimum_version: MinimumVersion = "1.3") -> ssl.SSLContext:
    """A context that trusts `ca_certificate` alone, or the machine's authorities where it is None; names are checked.

    Raises: KeyUnusable.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _restrict(context, minimum_version)
    if ca_certificate is None:
        context.load_default_certs()
        return context
    load_certificates(ca_certificate)
    context.load_verify_locations(ca_certificate)
    return context


def _restrict(context: ssl.SSLContext, minimum_version: MinimumVersion) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if minimum_version == "1.3" else ssl.TLSVersion.TLSv1_2
    if minimum_version == "1.2":
        context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
