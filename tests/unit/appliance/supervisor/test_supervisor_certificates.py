"""Certificates that are replaced while everything runs: sent when they can be used, and only then."""

import hashlib

import pytest

from appliance.authority.credentials import provision_tls
from appliance.config import parse_configuration
from appliance.messages.control import RenewCertificate
from appliance.supervisor.certificates import CertificateWatch
from audit.entry import encode_event, parse_canonical
from audit.permissions import verify_permitted
from security.tls import provision_identity
from tests.support.controls import control

ENGINE = '[[engines]]\nmodel_path = "m"\n'


@pytest.fixture
def configured(tmp_path):
    made = provision_identity(tmp_path / "made", ["localhost"])
    files = [tmp_path / name for name in ("server.pem", "server.key", "ca.pem")]
    put(made, files)
    text = f'[tls]\ncertificate = "server.pem"\nkey = "server.key"\nca_certificate = "ca.pem"\n{ENGINE}'
    return parse_configuration(text.encode(), tmp_path), files


def put(identity, files):
    """Replace the files, as an administrator or a program of the company's does."""
    for source, target in zip((identity.certificate, identity.key, identity.ca_certificate), files, strict=True):
        target.unlink(missing_ok=True)
        target.write_bytes(source.read_bytes())
        target.chmod(0o600)


def test_a_new_pair_is_sent_once(configured, tmp_path):
    """With what the files hold; what has not changed is not sent."""
    configuration, files = configured
    sent = []
    watch = CertificateWatch(configuration, sent.append, lambda _event: None)
    watch.check()
    assert sent == []
    other = provision_identity(tmp_path / "other", ["localhost"])
    put(other, files)
    for _ in range(2):
        watch.check()
    assert sent == [RenewCertificate(other.certificate.read_bytes(), other.key.read_bytes(), b"")]
    assert "PRIVATE" not in repr(sent)


def test_half_a_pair_waits_for_the_other_half(configured, tmp_path):
    """Files are replaced one by one; a missing or exposed one is not sent either."""
    configuration, files = configured
    sent = []
    watch = CertificateWatch(configuration, sent.append, lambda _event: None)
    other = provision_identity(tmp_path / "other", ["localhost"])
    files[0].write_bytes(other.certificate.read_bytes())
    watch.check()
    files[1].unlink()
    watch.check()
    files[1].write_bytes(other.key.read_bytes())
    files[1].chmod(0o644)
    watch.check()
    assert sent == []
    files[1].chmod(0o600)
    watch.check()
    assert [message.key for message in sent] == [other.key.read_bytes()]


def test_our_own_certificate_is_watched_as_well(tmp_path):
    """It is renewed by replacing its file."""
    configuration = parse_configuration(ENGINE.encode(), tmp_path)
    identity = provision_tls(configuration)
    sent = []
    watch = CertificateWatch(configuration, sent.append, lambda _event: None)
    provision_identity(configuration.state_path / "tls", ["localhost", "another.example"])
    watch.check()
    assert [message.certificate for message in sent] == [identity.certificate.read_bytes()]


@control("3.3.1", "AU-12", "CM-6(2)")
def test_a_certificate_that_is_put_in_force_is_recorded(configured, tmp_path):
    """By the digests of what was in force and is now; what cannot be used is in force for nobody, and no record."""
    configuration, files = configured
    recorded = []
    watch = CertificateWatch(configuration, lambda _message: None, recorded.append)
    before = hashlib.sha256(files[0].read_bytes()).hexdigest()
    other = provision_identity(tmp_path / "other", ["localhost"])
    files[0].write_bytes(other.certificate.read_bytes())
    watch.check()
    assert recorded == []
    put(other, files)
    for _ in range(2):
        watch.check()
    (event,) = recorded
    assert event["unmapped"]["casemate"]["kind"] == "key_rotated"
    assert event["entity"] == {"data": {"sha256": before}, "type": "certificate", "uid": str(files[0])}
    assert event["updated_entity"]["data"] == {"sha256": hashlib.sha256(files[0].read_bytes()).hexdigest()}
    verify_permitted("supervisor", "event", parse_canonical(encode_event(event)))
