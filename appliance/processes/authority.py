"""The authority process: tokens for registered clients, on its own TLS listener.

It holds the token signing keys. Who exists it asks policy; it has links to policy and the auditor, and to nobody else.
"""

import asyncio
import json
import ssl
import time
from functools import partial
from pathlib import Path

from appliance.authority.addresses import issuer_of, resource_of
from appliance.authority.application import AuthorityApplication
from appliance.authority.bookkeeping import Bookkeeper
from appliance.authority.credentials import (
    build_listener_context,
    find_client_authorities,
    load_signing_keys,
    renew_certificate,
)
from appliance.authority.directory import Directory
from appliance.authority.journal import Journal
from appliance.authority.key_rotation import KeyRotation
from appliance.authority.listener import build_listener
from appliance.authority.passkey_pages import PasskeyRoutes
from appliance.authority.people import CALLBACK_PATH, PeopleRoutes
from appliance.authority.sign_in import SignInDesk
from appliance.authority.upstream import UpstreamDesk
from appliance.config import Configuration
from appliance.messages.control import RenewCertificate
from appliance.policy.locations import load_credentials_key
from appliance.processes.member import Member
from security.oauth.authority import Authority
from security.oauth.client_authentication import ClientAuthentication
from security.oauth.dpop_nonces import DpopNonces, make_nonce_key
from security.oauth.failure_limit import FailureLimit
from security.oauth.interactions import Interactions
from security.oauth.metadata import TOKEN_PATH
from security.oauth.refresh_store import RefreshStore
from security.oauth.sessions import SessionRules
from security.oauth.signing_keys import SigningKeys
from security.passkeys import PasskeyServer, find_rp_id
from security.policy.replay import ReplayMemory
from security.tls import find_authorities, load_certificates

REFRESH_FILE = "authority/sessions.sqlite"


def build_authority(
    config: Configuration, keys: SigningKeys, directory: Directory, refresh: RefreshStore, credentials_key: bytes
) -> Authority:
    """The authority by its configuration."""
    issuer = issuer_of(config)
    lifetime_s = config.authority.dpop_nonce_lifetime_s
    client_ca = config.tls.client_ca_certificate
    used = ReplayMemory(clock=time.time, known=refresh.find_used(), keep=refresh.note_used)
    authentication = ClientAuthentication(
        credentials_key,
        frozenset({issuer, issuer + TOKEN_PATH}),
        used=used,
        client_authorities=() if client_ca is None else find_authorities(load_certificates(Path(client_ca))),
    )
    rules = SessionRules(
        refresh_idle_s=config.authority.refresh_idle_s,
        session_s=config.authority.session_lifetime_s,
        binds_privileged=config.mode == "production",
    )
    return Authority(
        issuer=issuer,
        resource=resource_of(config),
        keys=keys,
        authentication=authentication,
        facts=directory,
        interactions=Interactions(),
        refresh=refresh,
        rules=rules,
        token_lifetime_s=config.authority.token_lifetime_s,
        revocations=directory.revocations,
        used=used,
        offers_certificates=config.tls.client_certificates,
        dpop_nonces=DpopNonces(make_nonce_key(), lifetime_s) if lifetime_s else None,
    )


def renew_trust(tls: ssl.SSLContext, authority: Authority, message: RenewCertificate) -> None:
    """Serve another certificate, and know clients by the authorities that TLS knows them by."""
    if renew_certificate(tls, message) and message.client_authorities:
        authority.trust_client_authorities(find_client_authorities(message))


async def serve(member: Member) -> None:
    """Serve until drained. The supervisor has provisioned the certificate; its authority's key is not read here.

    Raises: SecurityMisconfigured, StartRefused.
    """
    config = member.config
    tls = build_listener_context(config)
    keys = load_signing_keys(config)
    credentials_key = load_credentials_key(config.state_path)
    journal = Journal(timeout_s=config.authority.audit_timeout_s)
    directory = Directory(lambda: json.dumps(keys.public_key_set()).encode())
    refresh = RefreshStore.open(config.state_path / REFRESH_FILE)
    try:
        authority = build_authority(config, keys, directory, refresh, credentials_key)
        member.on_certificate = partial(renew_trust, tls, authority)
        failures = FailureLimit(config.authority.max_failures_per_minute, clock=time.monotonic)
        has_passkeys = find_rp_id(authority.issuer) is not None and config.upstream is None
        passkeys = PasskeyServer(authority.issuer) if has_passkeys else None
        desk = SignInDesk(directory, refresh, credentials_key, config.authority, passkeys=passkeys)
        upstream = None
        if config.upstream is not None:
            redirect_uri = authority.issuer + CALLBACK_PATH
            upstream = UpstreamDesk(config.upstream, refresh, redirect_uri, minimum_version=config.tls.minimum_version)
            directory.people_elsewhere = refresh.find_person
        people = PeopleRoutes(authority, desk, directory, journal, failures, config.authority.banner, upstream)
        app = AuthorityApplication(
            authority, journal, failures, (people, PasskeyRoutes(desk, directory, passkeys))
        ).build()
        rotation = KeyRotation(
            keys,
            directory,
            lifetime_days=config.authority.signing_key_lifetime_days,
            algorithm=config.authority.signing_algorithm,
        )
        listener = build_listener(app, config.authority, tls)
        member.on_link("auditor", journal.run)
        member.on_link("policy", directory.run)
        await member.listening()
        async with asyncio.TaskGroup() as group:  # A task that fails ends the process, which is then started again.
            bookkeeping = group.create_task(Bookkeeper(journal, failures, refresh, rotation).run())
            serving = group.create_task(listener.serve(member.listeners, member.draining))
            while not (listener.started or serving.done()):  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.01)
            if not serving.done():
                await member.ready(issuer=authority.issuer, signing_key=keys.current.kid)
            await serving
            bookkeeping.cancel()
    finally:
        refresh.close()
