"""Requests that are no inference and change something: in the log before they do."""

from collections.abc import Mapping

from appliance.gateway.exchange import Exchange
from appliance.gateway.peers.auditor import AuditorPeer
from audit.entry import encode_event
from audit.events import Call, Caller, request_event


async def record_request(
    auditor: AuditorPeer, exchange: Exchange, kind: str, operation: tuple[str, str], facts: Mapping[str, str | int]
) -> None:
    """Record who asks for it; when this returns the record is durable.

    Args:
        kind: of the event.
        operation: method and path, as they were registered.
    Raises: PeerUnavailable, InternalFault; then nothing MUST be changed.
    """
    who, (http_method, route) = exchange.identified, operation
    caller = Caller(
        client_id=who.client_id,
        subject=who.subject,
        tenant=who.tenant,
        role=who.role,
        token_issuer=who.issuer,
        token_key_id=who.key_id,
        token_id=who.token_id,
        address=exchange.source_address,
        port=exchange.source_port,
    )
    call = Call(
        request_uid=exchange.request_id,
        trace_id=exchange.trace.trace_id,
        route=route,
        model="",
        engine_build="",
        http_method=http_method,
    )
    await auditor.record(encode_event(request_event(kind, caller, call, facts=facts)))
