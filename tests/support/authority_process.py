"""The authority process in this one, on a real TLS listener on loopback; auditor and policy are played at the other ends of its
links.
"""

import asyncio
import http.client
import socket
import time
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import msgspec

from appliance.authority.credentials import find_tls_identity, provision_tls
from appliance.config import default_configuration
from appliance.errors import LinkClosed
from appliance.messages.audit import Recorded
from appliance.messages.policy import AddPasskey, Done, FindPrincipal, Found, RevokeToken, SetPassword
from appliance.policy.locations import database_of, load_credentials_key
from appliance.processes.authority import serve
from security.clients import ClientDefinition
from security.tls import build_client_context
from security.users import Passkey
from tests.support.definitions import Registry
from tests.support.ports import free_port
from tests.support.prompt_servers import prompt_servers
from tests.support.waiting import GIVE_UP_S


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
    """Policy's end of a link, which knows the clients and people of a registry."""

    def __init__(self, registry):
        self._registry = registry
        self._answers = asyncio.Queue()
        self.revoked = []
        self.sources = []
        """From where each change was asked for."""

    def send(self, message):
        match message:
            case FindPrincipal(kind=kind, name=name):
                found = self._registry.find(name) if kind == "client" else self._registry.users.find(name)
                definition = None if found is None else msgspec.msgpack.encode(found)
                self._answers.put_nowait(Found(message.correlation, definition))
            case RevokeToken():
                self.revoked.append((message.kind, message.value))
                self.sources.append(message.source[0])
                self._answers.put_nowait(Done(message.correlation))
            case AddPasskey():
                passkey = Passkey(credential=message.credential, name=message.name, created_at=int(time.time()))
                self._registry.users.add_passkey(message.user_id, passkey, actor=f"user:{message.user_id}")
                self._answers.put_nowait(Done(message.correlation))
            case SetPassword():
                actor = f"user:{message.user_id}"
                self._registry.users.set_password(message.user_id, message.password_hash, actor=actor)
                self._answers.put_nowait(Done(message.correlation))

    async def receive(self):
        return await self._answers.get()


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


@asynccontextmanager
async def running_authority(folder, configure=lambda config: config):
    """A running authority and what a test needs of it.

    Args:
        configure: changes the configuration before anything is made from it.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    config, _data = default_configuration(Path("/nowhere"), "tiny", folder / "state dir", (free_port(), port))
    config = configure(config)
    provision_tls(config)
    registry = Registry(database_of(config), key=load_credentials_key(config.state_path))
    issued = registry.create(ClientDefinition(name="demo"), actor="t")
    member = PlayedMember(config, listener)
    process = asyncio.create_task(serve(member))
    facts = await asyncio.wait_for(member.facts, GIVE_UP_S)
    link = asyncio.create_task(member.handlers["auditor"](RecordingAuditor()))
    played = PlayedPolicy(registry)
    policy = asyncio.create_task(member.handlers["policy"](played))
    await asyncio.sleep(0)
    with prompt_servers():
        yield SimpleNamespace(
            config=config, port=port, issued=issued, facts=facts, member=member, process=process, registry=registry,
            policy=played,
        )  # fmt: skip
        member.draining.set()
        await asyncio.wait_for(process, GIVE_UP_S)
    link.cancel()
    policy.cancel()
    registry.close()
    listener.close()


def request(running, method, path, *, headers=None, body=None, context=None):
    """One HTTPS request as any client would make it: status, headers, body."""
    context = context or build_client_context(find_tls_identity(running.config).ca_certificate)
    connection = http.client.HTTPSConnection("127.0.0.1", running.port, context=context, timeout=20)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()
