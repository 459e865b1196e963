"""TLS files and contexts: an own authority that outside verifiers accept, renewal, and every file that is not usable."""

import datetime
import multiprocessing
import shutil
import socket
import ssl
import subprocess
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from security.certificates import issue_ca, issue_server_certificate, names_of, parse_general_name
from security.errors import KeyUnusable
from security.keys import encode_private_key, generate_ed25519, generate_p256, load_private_key, write_replacing
from security.tls import (
    TlsIdentity,
    build_client_context,
    build_server_context,
    load_certificates,
    provision_identity,
    verify_identity,
)
from tests.support.controls import control

NAMES = ("localhost", "127.0.0.1", "::1", "gateway.example")
DAY = datetime.timedelta(days=1)


@pytest.fixture
def identity(tmp_path):
    return provision_identity(tmp_path / "tls", NAMES)


def handshake(server, client, name):
    """Run one TLS handshake in memory; gives the version, or raises what the client raised."""
    client_socket, server_socket = socket.socketpair()

    def serve():
        try:
            with server.wrap_socket(server_socket, server_side=True) as tls:
                tls.recv(1)
        except (ssl.SSLError, OSError):
            server_socket.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client_socket, client.wrap_socket(client_socket, server_hostname=name) as tls:
            version, alpn = tls.version(), tls.selected_alpn_protocol()
            tls.sendall(b"x")
            return version, alpn
    finally:
        thread.join(10)


@pytest.mark.parametrize("name", NAMES)
def test_clients_that_trust_the_authority_connect_by_any_of_the_names(identity, name):
    """With TLS 1.3."""
    client = build_client_context(identity.ca_certificate)
    client.set_alpn_protocols(["h2", "http/1.1"])
    assert handshake(build_server_context(identity), client, name) == ("TLSv1.3", "http/1.1")


@control("3.13.8", "3.13.15", "SC-8", "SC-8(1)", "SC-23")
def test_a_wrong_name_is_refused(identity):
    """A certificate for one host is none for another."""
    server, client = build_server_context(identity), build_client_context(identity.ca_certificate)
    for name in ("elsewhere.example", "127.0.0.2", "x.gateway.example", "::2"):
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(server, client, name)


@control("3.1.13", "3.13.8", "3.13.15", "AC-17(2)", "IA-5(2)", "SC-8", "SC-8(1)", "SC-17", "SC-23")
def test_a_foreign_authority_is_refused(identity, tmp_path):
    """Of the same shape, but not ours; nor does the machine's own trust count."""
    other = provision_identity(tmp_path / "other", NAMES)
    for client in (build_client_context(other.ca_certificate), build_client_context(None)):
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(build_server_context(identity), client, "localhost")


@control("IA-5(2)", "SC-17")
def test_the_chain_passes_strict_verification(identity):
    """RFC 5280 as OpenSSL's strict mode reads it, which newer Pythons have on."""
    client = build_client_context(identity.ca_certificate)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    assert handshake(build_server_context(identity), client, "localhost")[0] == "TLSv1.3"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command")
def test_openssl_verifies_the_chain(identity):
    """An outside judge: purpose, name, address, strictness."""
    for check in (["-verify_hostname", "gateway.example"], ["-verify_ip", "127.0.0.1"]):
        command = [
            "openssl",
            "verify",
            "-x509_strict",
            "-purpose",
            "sslserver",
            "-CAfile",
            str(identity.ca_certificate),
            *check,
        ]
        subprocess.run([*command, str(identity.certificate)], check=True, capture_output=True)
    wrong = [
        "openssl",
        "verify",
        "-CAfile",
        str(identity.ca_certificate),
        "-verify_hostname",
        "no.example",
        str(identity.certificate),
    ]
    assert subprocess.run(wrong, capture_output=True, check=False).returncode != 0


@control("3.1.13", "3.13.8", "AC-17(2)", "SC-8", "SC-8(1)")
def test_old_versions_are_refused_unless_asked_for(identity):
    """TLS 1.3 by default, 1.2 on request, never less."""
    strict, lax = build_server_context(identity), build_server_context(identity, minimum_version="1.2")
    old = build_client_context(identity.ca_certificate, minimum_version="1.2")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, OSError)):
        handshake(strict, old, "localhost")
    assert handshake(lax, old, "localhost")[0] == "TLSv1.2"
    assert lax.minimum_version == ssl.TLSVersion.TLSv1_2


def test_files_have_the_modes_they_need(identity, tmp_path):
    """Keys for us alone; certificates for everybody."""
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "tls").iterdir()}
    assert modes == {"ca.key": 0o600, "ca.pem": 0o644, "server.key": 0o600, "server.pem": 0o644, ".lock": 0o600}


def test_nothing_changes_while_nothing_needs_to(identity, tmp_path):
    """The second start makes no new files, whatever the order of the names."""
    before = {path: path.read_bytes() for path in (tmp_path / "tls").iterdir()}
    assert provision_identity(tmp_path / "tls", (*reversed(NAMES), "LOCALHOST")) == identity
    assert {path: path.read_bytes() for path in (tmp_path / "tls").iterdir()} == before


def test_the_server_certificate_is_renewed_when_names_or_time_ask_for_it(identity, tmp_path):
    """Under the same authority, so that clients notice nothing."""
    ca = identity.ca_certificate.read_bytes()
    first = load_certificates(identity.certificate)[0]
    provision_identity(tmp_path / "tls", (*NAMES, "new.example"))
    second = load_certificates(identity.certificate)[0]
    assert names_of(second) == {*NAMES, "new.example"}
    later = datetime.datetime.now(datetime.UTC) + 350 * DAY
    provision_identity(tmp_path / "tls", (*NAMES, "new.example"), now=later)
    third = load_certificates(identity.certificate)[0]
    assert len({first.serial_number, second.serial_number, third.serial_number}) == 3
    assert third.not_valid_after_utc > later + 300 * DAY
    assert identity.ca_certificate.read_bytes() == ca
    verify_identity(identity, later)


def test_a_crash_between_key_and_certificate_is_repaired(identity, tmp_path):
    """A pair that does not match is replaced at the next start."""
    write_replacing(identity.key, encode_private_key(generate_p256()))
    with pytest.raises(KeyUnusable, match=r"server\.key is not the key"):
        verify_identity(identity)
    provision_identity(tmp_path / "tls", NAMES)
    verify_identity(identity)


def test_a_server_certificate_of_another_authority_is_replaced(identity, tmp_path):
    """Somebody restored half of a backup."""
    other = provision_identity(tmp_path / "other", NAMES)
    write_replacing(identity.certificate, other.certificate.read_bytes(), mode=0o644)
    write_replacing(identity.key, other.key.read_bytes())
    provision_identity(tmp_path / "tls", NAMES)
    assert handshake(build_server_context(identity), build_client_context(identity.ca_certificate), "localhost")


def test_the_authority_is_never_replaced_silently(identity, tmp_path):
    """Every client would have to be told: expiring, without its key, with another's key, or of another kind, it is an error."""
    folder = tmp_path / "tls"
    with pytest.raises(KeyUnusable, match=r"ca\.pem expires on"):
        provision_identity(folder, NAMES, now=datetime.datetime.now(datetime.UTC) + 3600 * DAY)
    key = (folder / "ca.key").read_bytes()
    (folder / "ca.key").unlink()
    with pytest.raises(KeyUnusable, match=r"ca\.key is missing"):
        provision_identity(folder, NAMES)
    for other in (generate_p256(), generate_ed25519()):
        write_replacing(folder / "ca.key", encode_private_key(other))
        with pytest.raises(KeyUnusable, match=r"ca\.key"):
            provision_identity(folder, NAMES)
    write_replacing(folder / "ca.key", key)
    provision_identity(folder, NAMES)


@control("3.13.10", "SC-12", "SC-17")
def test_an_exposed_authority_key_stops(identity, tmp_path):
    """Whoever read it can be anybody to our clients."""
    (tmp_path / "tls" / "ca.key").chmod(0o644)
    with pytest.raises(KeyUnusable, match=r"ca\.key is open to others"):
        provision_identity(tmp_path / "tls", NAMES)


def _provision(folder):
    provision_identity(folder, NAMES)


def test_processes_that_start_together_make_one_authority(tmp_path):
    """And a server certificate that belongs to it."""
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_provision, args=(tmp_path / "tls",)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(200)
    assert [worker.exitcode for worker in workers] == [0] * 4
    identity = TlsIdentity(
        tmp_path / "tls" / "server.pem", tmp_path / "tls" / "server.key", tmp_path / "tls" / "ca.pem"
    )
    assert handshake(build_server_context(identity), build_client_context(identity.ca_certificate), "localhost")


def test_configured_files_that_cannot_be_used_are_named(identity, tmp_path):
    """Missing, garbage, exposed, of another pair, expired, not yet valid, a broken trust file."""
    other = provision_identity(tmp_path / "other", NAMES)
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("garbage")
    garbage.chmod(0o600)
    exposed = tmp_path / "exposed.key"
    write_replacing(exposed, identity.key.read_bytes(), mode=0o644)
    cases = [
        (TlsIdentity(tmp_path / "missing.pem", identity.key, None), "missing.pem cannot be read"),
        (TlsIdentity(identity.certificate, tmp_path / "missing.key", None), "missing.key cannot be read"),
        (TlsIdentity(garbage, identity.key, None), "garbage.pem is not a PEM certificate"),
        (TlsIdentity(identity.certificate, garbage, None), "garbage.pem is not an unencrypted PEM private key"),
        (TlsIdentity(identity.certificate, exposed, None), "exposed.key is open to others"),
        (TlsIdentity(identity.certificate, other.key, None), "is not the key of"),
        (TlsIdentity(identity.certificate, identity.key, garbage), "garbage.pem is not a PEM certificate"),
        (TlsIdentity(tmp_path, identity.key, None), "cannot be read"),
    ]
    for case, match in cases:
        with pytest.raises(KeyUnusable, match=match):
            build_server_context(case)
    now = datetime.datetime.now(datetime.UTC)
    with pytest.raises(KeyUnusable, match="expired on"):
        verify_identity(identity, now + 400 * DAY)
    with pytest.raises(KeyUnusable, match="valid only from"):
        verify_identity(identity, now - DAY)


@pytest.mark.parametrize(
    "name", ["", "a b", "-a", "a-", "a..b", ".a", "x" * 64, "é.example", "a/b", "*", "a:b", "*.*.x", "a." * 130]
)
def test_names_that_no_certificate_can_bear_are_refused(name, tmp_path):
    """Before anything is made."""
    with pytest.raises(KeyUnusable, match="neither a DNS name nor an IP address"):
        parse_general_name(name)


def test_the_profile_of_what_is_issued():
    """Authority: path length 0, signs certificates only. Server: no authority, serverAuth, never outliving its issuer."""
    now = datetime.datetime.now(datetime.UTC)
    ca_key, key = generate_p256(), generate_p256()
    ca = issue_ca(ca_key, now)
    late = ca.not_valid_after_utc - 10 * DAY
    certificate = issue_server_certificate(ca, ca_key, key.public_key(), ["*.example", "10.0.0.1"], late)
    assert certificate.not_valid_after_utc == ca.not_valid_after_utc
    assert ca.extensions.get_extension_for_class(x509.BasicConstraints).value == x509.BasicConstraints(True, 0)
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]
    assert names_of(certificate) == {"*.example", "10.0.0.1"}
    assert names_of(ca) == frozenset()
    assert b"PRIVATE" not in certificate.public_bytes(Encoding.PEM)


def test_the_server_file_holds_the_whole_chain(identity):
    """Leaf first, as RFC 8446 section 4.4.2 wants it sent."""
    leaf, ca = load_certificates(identity.certificate)
    leaf.verify_directly_issued_by(ca)
    assert ca == load_certificates(identity.ca_certificate)[0]
    assert load_private_key(identity.key)
