"""The authority process on a real TLS listener on loopback: its own files, a real HTTPS client, the gateway's own check."""

import asyncio
import http.client
import json
import ssl
from base64 import b64encode
from pathlib import Path

import pytest

from appliance.authority.credentials import find_tls_identity, provision_tls
from appliance.authority.listener import KEEP_ALIVE_TIMEOUT_S
from appliance.authority.token_check import build_token_check
from appliance.config import default_configuration
from appliance.gateway.identity import Presented, TokenIssuerUnavailable
from appliance.messages.control import RenewCertificate
from security.tls import build_client_context, provision_identity
from tests.support.authority_process import request, running_authority
from tests.support.controls import control


def presented(token):
    """A token as a request brings it."""
    return Presented(scheme="bearer", token=token, method="GET", path="/v1/models", address="192.0.2.1")


@pytest.fixture
async def running(tmp_path):
    """A running authority and what a test needs of it."""
    async with running_authority(tmp_path) as made:
        yield made


def ask_token(running):
    pair = b64encode(f"{running.issued.client.client_id}:{running.issued.secret}".encode()).decode()
    headers = {"Authorization": f"Basic {pair}", "Content-Type": "application/x-www-form-urlencoded"}
    return request(running, "POST", "/token", headers=headers, body="grant_type=client_credentials")


async def test_from_registry_to_principal_over_tls(running):
    """A token from the listener, keys over TLS by the gateway's own source, and the check says who it is."""
    status, headers, body = await asyncio.to_thread(ask_token, running)
    assert status == 200
    assert "server" not in {name.lower() for name in headers}
    check = build_token_check(running.config)
    await check.prepare()
    principal = await check(presented(json.loads(body)["access_token"]))
    assert principal.client_id == running.issued.client.client_id
    assert principal.key_id == running.facts["signing_key"]
    assert principal.issuer == running.facts["issuer"] == f"https://127.0.0.1:{running.port}"


@control("3.1.13", "3.5.10", "3.13.8", "AC-4(4)", "AC-17(2)", "IA-5(6)", "SC-8", "SC-8(1)")
async def test_the_listener_speaks_tls_1_3_only(running):
    """And plain HTTP not at all."""
    old = build_client_context(find_tls_identity(running.config).ca_certificate, minimum_version="1.2")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, OSError)):
        await asyncio.to_thread(request, running, "GET", "/health", context=old)
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"HTTP" not in await asyncio.wait_for(reader.read(), 20)
    writer.close()


@pytest.mark.parametrize(
    "length", [b"Content-Length: 1000000000", b"Transfer-Encoding: chunked"], ids=["length", "chunked"]
)
async def test_a_body_that_nobody_waits_for_ends_with_the_answer(running, length):
    """Whoever drips one would hold a place among the connections for as long as they like."""
    tls = build_client_context(find_tls_identity(running.config).ca_certificate)
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=tls)
    writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n" + length + b"\r\n\r\n")
    async with asyncio.timeout(KEEP_ALIVE_TIMEOUT_S - 5):  # A connection on which nothing comes is closed later.
        answer = await reader.read(-1)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nconnection: close\r\n" in answer  # Or its client would send the next request into it.
    writer.close()


async def test_a_new_certificate_is_served_without_a_restart(running, tmp_path):
    """By the listener that runs, to the next connection; one that is open goes on, and a pair that does not fit changes nothing."""
    ours = find_tls_identity(running.config).ca_certificate
    old = http.client.HTTPSConnection("127.0.0.1", running.port, context=build_client_context(ours), timeout=20)
    await asyncio.to_thread(old.request, "GET", "/health")
    (await asyncio.to_thread(old.getresponse)).read()
    renewed = provision_identity(tmp_path / "renewed", ["127.0.0.1"])
    certificate, key = renewed.certificate.read_bytes(), renewed.key.read_bytes()
    running.member.on_certificate(RenewCertificate(certificate, b"no key", b""))
    assert (await asyncio.to_thread(request, running, "GET", "/health"))[0] == 200
    running.member.on_certificate(RenewCertificate(certificate, key, b""))
    new = build_client_context(renewed.ca_certificate)
    assert (await asyncio.to_thread(request, running, "GET", "/health", context=new))[0] == 200
    with pytest.raises(ssl.SSLError):
        await asyncio.to_thread(request, running, "GET", "/health")
    await asyncio.to_thread(old.request, "GET", "/jwks.json")
    assert (await asyncio.to_thread(old.getresponse)).status == 200
    old.close()


async def test_keys_are_not_taken_from_a_server_with_another_certificate(running, tmp_path):
    """The pinned authority is the only one that counts."""
    (running.config.state_path / "tls" / "ca.pem").rename(tmp_path / "own.pem")
    other, _data = default_configuration(Path("/nowhere"), "tiny", tmp_path / "other", (1, 2))
    foreign = provision_tls(other).ca_certificate
    (running.config.state_path / "tls" / "ca.pem").write_bytes(foreign.read_bytes())
    with pytest.raises(TokenIssuerUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        await build_token_check(running.config).prepare()


async def test_health_and_drain(running):
    """It answers while it runs, and ends when it is told to."""
    status, _headers, body = await asyncio.to_thread(request, running, "GET", "/health")
    assert (status, json.loads(body)) == (200, {"status": "ok"})
    running.member.draining.set()
    await asyncio.wait_for(asyncio.shield(running.process), 20)
    with pytest.raises(OSError):
        await asyncio.to_thread(request, running, "GET", "/health")
