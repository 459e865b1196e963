"""The authority process: tokens for registered clients, on its own TLS listener.

It holds the token signing keys. Who exists it asks policy; it has links to policy and the auditor, and to nobody else.
"""

import asyncio
import json
import time

from appliance.authority.addresses import issuer_of, resource_of
from appliance.authority.application import AuthorityApplication
from appliance.authority.bookkeeping import Bookkeeper
from appliance.authority.credentials import find_tls_identity, load_signing_keys
from appliance.authority.directory import Directory
from appliance.authority.journal import Journal
from appliance.authority.listener import build_listener
from appliance.policy.locations import load_credentials_key
from appliance.processes.member import Member
from security.oauth.authority import Authority
from security.oauth.failure_limit import FailureLimit
from security.tls import build_server_context


async def serve(member: Member) -> None:
    """Serve until drained. The supervisor has provisioned the certificate; its authority's key is not read here.

    Raises: SecurityMisconfigured, StartRefused.
    """
    config = member.config
    tls = build_server_context(find_tls_identity(config), minimum_version=config.tls.minimum_version)
    keys = load_signing_keys(config)
    authority = Authority(
        issuer=issuer_of(config),
        resource=resource_of(config),
        keys=keys,
        credentials_key=load_credentials_key(config.state_path),
        token_lifetime_s=config.authority.token_lifetime_s,
    )
    journal = Journal(timeout_s=config.authority.audit_timeout_s)
    directory = Directory(lambda: json.dumps(authority.key_set()).encode())
    failures = FailureLimit(config.authority.max_failures_per_minute, clock=time.monotonic)
    app = AuthorityApplication(authority, journal, failures, directory).build()
    listener = build_listener(app, config.authority, tls)
    member.on_link("auditor", journal.run)
    member.on_link("policy", directory.run)
    await member.listening()
    async with asyncio.TaskGroup() as group:  # A task that fails ends the process, which is then started again.
        bookkeeping = group.create_task(Bookkeeper(journal, failures).run())
        serving = group.create_task(listener.serve(member.listeners, member.draining))
        while not (listener.started or serving.done()):  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        if not serving.done():
            await member.ready(issuer=authority.issuer, signing_key=keys.current.kid)
        await serving
        bookkeeping.cancel()
