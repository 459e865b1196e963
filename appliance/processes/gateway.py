"""A gateway worker: HTTPS for clients, links to engines, policy and auditor. It holds no signing key and no model weights.

It reads the tokenizer of each served model and the server's TLS key. Several workers may share the listening socket; each has
links of its own.
"""

import asyncio
import contextlib
from functools import partial
from importlib.metadata import version
from pathlib import Path

import structlog

from appliance.authority.credentials import build_listener_context, renew_certificate
from appliance.authority.token_check import AuthorityTokenCheck, build_token_check, describe_resource
from appliance.config import Configuration, served_name_of, what_is_lacking
from appliance.gateway.api.health import Installation
from appliance.gateway.api.response_store import ResponseStore
from appliance.gateway.flow.bodies import BODIES, BodyPolicy
from appliance.gateway.identity import TokenIssuerUnavailable
from appliance.gateway.loading import load_models
from appliance.gateway.observing import Exporting
from appliance.gateway.worker import Worker
from appliance.models.admission import verify_folder
from appliance.processes.member import Member
from appliance.processes.memory import keep_buffers_apart, settle_memory
from appliance.processes.niceness import take_short_turns
from audit.sealing import parse_recipient
from security.keys import load_or_create_secret, make_private_directory

RESPONSES_KEY_FILE = "responses.key"
KEY_RETRY_S = 0.25

log = structlog.get_logger(__name__)


async def serve(member: Member) -> None:
    """Serve until drained.

    Raises: StartRefused, SecurityMisconfigured, CheckpointRejected.
    """
    keep_buffers_apart()
    take_short_turns()
    config = member.config
    tls = build_listener_context(config)
    member.on_certificate = partial(renew_certificate, tls)
    check_token = build_token_check(config)
    member.on_issuer_keys = lambda message: check_token.renew_keys(message.issuer, message.data)
    folders = [(served_name_of(engine), Path(engine.model_path)) for engine in config.engines]
    exporter = _build_exporter(config, member.instance)
    worker = Worker(
        config.gateway,
        load_models(folders, config.gateway, partial(verify_folder, config)),
        check_token,
        served=[name for name, _ in folders],
        states=lambda: member.states,
        installation=_describe(member),
        tls=tls,
        store=_build_store(config),
        metrics_dir=config.state_path / "run" / "metrics",
        instance=member.instance,
        resource=describe_resource(config),
        bodies=_build_body_policy(config),
        observer=exporter,
    )
    check_token.use_policy(worker.desk.policy)
    member.on_link("engine", worker.desk.engines.run)
    member.on_link("compiler", worker.desk.compiler.run)
    member.on_link("policy", worker.desk.policy.run)
    member.on_link("auditor", worker.desk.auditor.run)
    member.on_link("reader", worker.desk.reader.run)
    await member.listening()
    preparing = asyncio.create_task(_prepare(check_token))
    serving = asyncio.create_task(worker.serve(member.listeners, member.draining, lambda: member.drain_timeout_s))
    try:
        while not (worker.server.started or serving.done()):  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        settle_memory()
        if not serving.done():
            await member.ready(address=f"https://{config.gateway.host}:{member.listeners[0].getsockname()[1]}")
        await serving
    finally:
        preparing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await preparing
        if exporter is not None:
            await asyncio.to_thread(exporter.shutdown)


async def _prepare(check_token: AuthorityTokenCheck) -> None:
    """Fetch the authority's keys as soon as it is there: it starts together with us."""
    while True:
        try:
            await check_token.prepare()
            return
        except TokenIssuerUnavailable:
            await asyncio.sleep(KEY_RETRY_S)


def _build_exporter(config: Configuration, instance: int) -> Exporting | None:
    """What sends to a collector, where one is configured; else the SDK is not even imported."""
    if not config.telemetry.otlp_endpoint:
        return None
    from appliance.telemetry.exporting import Exporter

    return Exporter(config.telemetry, version=version("casemate"), instance=instance)


def _build_store(config: Configuration) -> ResponseStore:
    directory = config.state_path / "gateway"
    make_private_directory(directory)
    key = load_or_create_secret(directory / RESPONSES_KEY_FILE)
    return ResponseStore(directory / "responses.sqlite", key, config.gateway.response_retention_s)


def _build_body_policy(config: Configuration) -> BodyPolicy:
    audit = config.audit
    recipients = [parse_recipient(Path(path).read_bytes()) for path in audit.body_recipients]
    return BodyPolicy(frozenset(audit.sealed_tenants), recipients, config.state_path / BODIES)


def _describe(member: Member) -> Installation:
    lacks = [(lack.name, lack.consequence) for lack in what_is_lacking(member.config)]
    told = member.assignment
    return Installation(member.config.mode, lacks, told.single_user, told.statement, told.tpm)
