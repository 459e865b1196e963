"""openid-client, which the OpenID Foundation has certified, gets tokens of an appliance in every way that needs no special TLS."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from joserfc.jwk import OKPKey

from tests.interop.conftest import javascript
from tests.support.appliance import Appliance
from tests.support.commands import run_casemate
from tests.support.people import REDIRECT, Person, make_application

MODEL = "casemate-demo"

pytestmark = pytest.mark.long


class Conversation:
    """The client's process, a line of JSON at a time."""

    def __init__(self, command: list[str], ca_file: Path) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "NODE_EXTRA_CA_CERTS": str(ca_file)},
        )  # fmt: skip

    def say(self, value: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(value) + "\n")
        self._process.stdin.flush()

    def hear(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def client(appliance: Appliance) -> Iterator[Conversation]:
    issuer = f"https://127.0.0.1:{appliance.authority_port}"
    conversation = Conversation([*javascript("oauth_client.mjs"), issuer, appliance.url], appliance.ca_file)
    yield conversation
    conversation.close()


def test_openid_client(appliance: Appliance, client: Conversation, tmp_path: Path) -> None:
    """Metadata, secrets, assertions, proofs with nonces, code with PKCE and `iss`, rotation and reuse, exchange; and refusals."""
    service = appliance.create_client("service")
    key = OKPKey.generate_key("Ed25519")
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [{**key.as_dict(private=False), "alg": "EdDSA"}]}))
    words = ["client", "create", "signed", "--auth", "private_key_jwt", "--jwks", str(tmp_path / "keys.json"), "--json"]
    signed = json.loads(run_casemate(*words, "--config", str(appliance.config_file)))
    application, ada = make_application(appliance), Person(appliance, "ada", "user")
    client.say(
        {
            "service": {"id": service.client_id, "secret": service.client_secret},
            "signed": {"id": signed["client_id"], "jwk": key.as_dict(private=True)},
            "application": {"id": application, "redirect": REDIRECT},
        }
    )
    address = urlsplit(client.hear()["authorize"])
    client.say({"callback": ada.agree(f"{address.path}?{address.query}")})
    got = client.hear()
    assert got["basic"] == ["bearer", "models.read", [MODEL]]
    assert got["post"] == "bearer"
    assert got["refusals"] == ["invalid_scope", "invalid_target", "invalid_token"]
    assert got["assertion"] == [MODEL]
    assert got["bound"] == ["dpop", [MODEL]]
    assert got["nonces"] == [["/token", 400], ["/token", 200], ["/v1/models", 401], ["/v1/models", 200]]
    assert got["unproven"] == "invalid_token"
    assert got["active"] == [True, False]
    assert got["session"] == ["models.read", [MODEL]]
    assert "invalid response" in got["mixed_up"]
    assert got["exchanged"] == [ada.user_id, service.client_id]
    assert got["reuse"] == ["invalid_grant", "invalid_grant"]
