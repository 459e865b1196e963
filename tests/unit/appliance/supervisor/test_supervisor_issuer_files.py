"""Files of other issuers' keys that are replaced while everything runs: sent to the gateways once, whatever they hold."""

import hashlib
import os

import pytest

from appliance.config import parse_configuration
from appliance.messages.control import MAX_ISSUER_KEYS_BYTES, IssuerKeys
from appliance.supervisor.issuer_files import IssuerFilesWatch
from tests.support.controls import control

ISSUER = "https://login.example"
TEXT = f"""
[[issuers]]
name = "corp"
issuer = "{ISSUER}"
audience = "api://casemate"
tenant = "acme"
jwks_file = "corp.jws"
jwks_signer_file = "signer.pem"
[[engines]]
model_path = "m"
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "corp.jws"
    path.write_bytes(b"first")
    return path


@pytest.fixture
def sent():
    return []


@pytest.fixture
def recorded():
    return []


@pytest.fixture
def watch(tmp_path, file, sent, recorded):
    return IssuerFilesWatch(parse_configuration(TEXT.encode(), tmp_path), sent.append, recorded.append)


def test_a_file_that_took_the_others_place_is_sent_once(watch, file, sent):
    """Renamed into place, as careful programs do, or written in place."""
    watch.check()
    assert sent == []
    file.with_suffix(".new").write_bytes(b"second")
    os.replace(file.with_suffix(".new"), file)
    for _ in range(2):
        watch.check()
    assert sent == [IssuerKeys(ISSUER, b"second")]
    file.write_bytes(b"third, in place")
    watch.check()
    assert sent[1:] == [IssuerKeys(ISSUER, b"third, in place")]


def test_what_is_missing_or_too_large_is_not_sent(watch, file, sent):
    """The first is on its way; the second is no key set."""
    file.unlink()
    watch.check()
    file.write_bytes(b"x" * (MAX_ISSUER_KEYS_BYTES + 1))
    watch.check()
    assert sent == []
    file.write_bytes(b"y")
    watch.check()
    assert sent == [IssuerKeys(ISSUER, b"y")]


@control("3.3.1", "AU-12", "CM-6(2)")
def test_whose_tokens_are_believed_from_now_on_is_recorded(watch, file, recorded):
    """By the digests of both files; once."""
    file.write_bytes(b"second")
    for _ in range(2):
        watch.check()
    (event,) = recorded
    assert event["unmapped"]["casemate"]["kind"] == "key_rotated"
    digests = [{"sha256": hashlib.sha256(data).hexdigest()} for data in (b"first", b"second")]
    assert (event["entity"]["uid"], event["entity"]["data"], event["updated_entity"]["data"]) == (ISSUER, *digests)


async def test_without_such_files_there_is_nothing_to_watch(tmp_path):
    """It ends at once."""
    await IssuerFilesWatch(parse_configuration(b'[[engines]]\nmodel_path = "m"\n', tmp_path), print, print).run()
