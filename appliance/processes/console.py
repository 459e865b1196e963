"""The console process: pages over the other listeners' APIs, on a listener of its own.

It has the network, to those listeners only, and one key, by which the authority knows it. No link, no database, no log.
"""

import asyncio
from functools import partial

from appliance.authority.addresses import administration_of, console_of, issuer_of, local_address, resource_of
from appliance.authority.credentials import build_listener_context, find_tls_identity, renew_certificate
from appliance.config import Configuration
from appliance.console.appliance_api import ApplianceApi
from appliance.console.application import Console, build_console_server, serve_console
from appliance.console.identity import CLIENT_KEY, client_id_of, redirect_uri_of
from appliance.console.pages import Pages
from appliance.console.sessions import SessionDesk
from appliance.console.tokens import AuthorityClient
from appliance.processes.member import Member
from appliance.processes.memory import settle_memory
from security.keys import load_private_key
from security.oauth.https_client import HttpsOrigin

MAX_ANSWER_BYTES = 8 << 20


def build_console(config: Configuration) -> Console:
    """The console by its configuration. Raises: StartRefused, KeyUnusable."""
    issuer = issuer_of(config)
    authority = AuthorityClient(
        _reach(config, issuer, config.authority.host, config.authority.port),
        client_id_of(config),
        load_private_key(config.state_path / CLIENT_KEY),
        redirect_uri_of(config),
        issuer=issuer,
    )
    api = ApplianceApi(
        {
            "gateway": _reach(config, resource_of(config), config.gateway.host, config.gateway.port),
            "administration": _reach(
                config, administration_of(config), config.administration.host, config.administration.port
            ),
        },
        authority,
    )
    settings = config.console
    pages = Pages(idle_s=settings.idle_s, mode=config.mode, banner=config.authority.banner)
    desk = SessionDesk(idle_s=settings.idle_s, lifetime_s=settings.session_lifetime_s)
    return Console(desk, pages, authority, api, console_of(config))


async def serve(member: Member) -> None:
    """Serve until drained. Raises: StartRefused, SecurityMisconfigured."""
    config = member.config
    tls = build_listener_context(config)
    member.on_certificate = partial(renew_certificate, tls)
    console = build_console(config)
    server = build_console_server(console.build(), config.console, tls)
    await member.listening()
    serving = asyncio.create_task(serve_console(console, server, member.listeners, member.draining))
    while not (server.started or serving.done()):  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    settle_memory()
    if not serving.done():
        await member.ready(console=console_of(config))
    await serving


def _reach(config: Configuration, origin: str, host: str, port: int) -> HttpsOrigin:
    """A listener of this host, by the name that its certificate is checked for."""
    return HttpsOrigin(
        origin,
        find_tls_identity(config).ca_certificate,
        max_bytes=MAX_ANSWER_BYTES,
        connect_to=(local_address(host), port),
        minimum_version=config.tls.minimum_version,
    )
