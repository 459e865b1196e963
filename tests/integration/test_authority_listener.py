"""The authority process on a real TLS listener on loopback: its own files, a real HTTPS client, the gateway's own check."""

import asyncio
import http.client
import json
import socket
import ssl
from base64 import b64encode
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from appliance.authority.credentials import find_tls_identity, provision_tls
from appliance.authority.token_check import build_token_check
from appliance.config import default_configuration
from appliance.errors import LinkClosed
from appliance.gateway.identity import Presented, TokenIssuerUnavailable
from appliance.messages.audit import Recorded
from appliance.messages.policy import FindPrincipal, Found
from appliance.policy.locations import database_of, load_credentials_key
from appliance.processes.authority import serve
from security.clients import ClientDefinition
from security.tls import build_client_context
from tests.support.controls import control
from tests.support.definitions import Registry


class RecordingAuditor:
    """The auditor's end of a link, which makes everything durable at once."""

    def __init__(self):
        self._answers = asyncio.Queue()

    def send(self, message):
        self._answers.put_nowait(Recorded(message.correlation, 1))

    async def receive(self):
        answer = await self._answers.get()
        if answer is None:
            raise LinkClosed("ended by the test")
        return answer


class PlayedPolicy:
    """Policy's end of a link, which knows the clients of a registry."""

    def __init__(self, registry):
        self._registry = registry
        self._answers = asyncio.Queue()

    def send(self, message):
        if isinstance(message, FindPrincipal):
            found = self._registry.find(message.name)
            self._answers.put_nowait(
                Found(message.correlation, None if found is None else msgspec.msgpack.encode(found))
            )

    async def receive(self):
        return await self._answers.get()


def presented(token):
    """A token as a request brings it."""
    return Presented(scheme="bearer", token=token, method="GET", path="/v1/models", address="192.0.2.1")


class PlayedMember:
    """What the authority asks of `Member`."""

    def __init__(self, config, listener):
        self.config = config
        self.listeners = [listener]
        self.draining = asyncio.Event()
        self.facts = asyncio.get_running_loop().create_future()
        self.handlers = {}

    def on_link(self, role, handler):
        self.handlers[role] = handler

    async def listening(self):
        pass

    async def ready(self, **facts):
        self.facts.set_result(facts)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
async def running(tmp_path):
    """A running authority and what a test needs of it."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    config, _data = default_configuration(Path("/nowhere"), "tiny", tmp_path / "state dir", (free_port(), port))
    provision_tls(config)
    registry = Registry(database_of(config), key=load_credentials_key(config.state_path))
    issued = registry.create(ClientDefinition(name="demo"), actor="t")
    member = PlayedMember(config, listener)
    process = asyncio.create_task(serve(member))
    facts = await asyncio.wait_for(member.facts, 20)
    link = asyncio.create_task(member.handlers["auditor"](RecordingAuditor()))
    policy = asyncio.create_task(member.handlers["policy"](PlayedPolicy(registry)))
    await asyncio.sleep(0)
    yield SimpleNamespace(config=config, port=port, issued=issued, facts=facts, member=member, process=process)
    member.draining.set()
    await asyncio.wait_for(process, 20)
    link.cancel()
    policy.cancel()
    registry.close()
    listener.close()


def request(running, method, path, *, headers=None, body=None, context=None):
    """One HTTPS request as any client would make it."""
    context = context or build_client_context(find_tls_identity(running.config).ca_certificate)
    connection = http.client.HTTPSConnection("127.0.0.1", running.port, context=context, timeout=20)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


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
