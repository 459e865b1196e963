"""The ASGI application: gate, endpoint, and for every fault one answer with the error body of the route's API.

This is the supervision point of one request: whatever an endpoint raises ends here, is recorded, and disturbs nothing else.
"""

import time
from collections.abc import Awaitable

import structlog

from appliance.gateway.api.dialects import OPENAI, Dialect, dialect_of
from appliance.gateway.asgi import Receive, Scope, Send
from appliance.gateway.errors import ClientGone, GatewayFault, InternalFault, Unauthenticated, http_of
from appliance.gateway.exchange import CERTIFICATE, BodyBudget, Exchange
from appliance.gateway.gate import Caller, Gate
from appliance.gateway.metrics import Metrics
from appliance.gateway.observing import OTHER_METHOD, EndedRequest, Observer
from appliance.gateway.rejections import Rejections
from appliance.gateway.routes import verify_query
from appliance.gateway.settings import GatewaySettings

log = structlog.get_logger(__name__)


class Application:
    """One worker's ASGI callable."""

    def __init__(
        self,
        gate: Gate,
        settings: GatewaySettings,
        metrics: Metrics,
        rejections: Rejections,
        statement: str = "",
        observer: Observer | None = None,
    ) -> None:
        """
        Args:
            statement: the digest that every answer names; empty for none.
            observer: is told of every request that ended.
        """
        self._observer = observer
        self._gate = gate
        self._statement = statement.encode()
        self._rejections = rejections
        self._settings = settings
        self._metrics = metrics
        self._count_active = metrics.http_requests_active.of()
        self._budget = BodyBudget(settings.max_pending_body_bytes)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one connection event of ASGI."""
        if scope["type"] == "http":
            return self._serve(scope, receive, send)  # No coroutine around it: each is gone through at every wakeup.
        return self._decline(scope, receive, send)

    async def _decline(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            raise RuntimeError(f"ASGI {scope['type']} is not served")
        await receive()
        await send({"type": "websocket.close", "code": 1008})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(
            scope,
            receive,
            send,
            max_body_bytes=self._settings.max_body_bytes,
            body_timeout_s=self._settings.body_timeout_s,
            send_timeout_s=self._settings.send_timeout_s,
            budget=self._budget,
            statement=self._statement,
        )
        path = self._gate.name_of(scope["method"], scope["raw_path"])
        dialect = OPENAI  # Of every refusal at the gate: a stranger learns from none which paths there are.
        began = time.monotonic()
        self._count_active(1)
        try:
            # (1) the route table, then (2) the access token; nothing of the request has been parsed yet.
            caller = Caller(exchange.source_address, scope.get(CERTIFICATE))
            admitted = await self._gate.admit(scope["method"], scope["raw_path"], scope["headers"], caller)
            exchange.forget_credentials()
            dialect = dialect_of(path)
            exchange.also_names_request = dialect.request_id_header
            verify_query(admitted.match.route, scope["query_string"])
            exchange.principal, exchange.segment = admitted.principal, admitted.match.segment
            await admitted.match.route.endpoint(exchange)
        except ClientGone as fault:
            exchange.status, exchange.error = exchange.status or 499, fault.code
            await exchange.abort()
        except Unauthenticated as fault:
            exchange.error = fault.code
            self._rejections.note(exchange, path, fault)
            await _refuse(exchange, fault, dialect)
        except GatewayFault as fault:
            exchange.error = fault.code
            await _refuse(exchange, fault, dialect)
        except Exception:  # the supervision point of one request
            log.exception("request_failed", request_id=exchange.request_id, trace=exchange.trace.trace_id, path=path)
            exchange.error = "internal_error"
            message = f"an internal error, recorded with request id {exchange.request_id}"
            await _refuse(exchange, InternalFault("internal_error", message), dialect)
        finally:
            exchange.release()
            self._count_active(-1)
            self._metrics.http_responses_total.of(_known(scope["method"]), path, str(exchange.status))(1)
            took_s = time.monotonic() - began
            self._metrics.http_request_duration_seconds.of(path)(took_s)
            if self._observer is not None:
                self._observer.request_ended(_describe(exchange, _known(scope["method"]), path, took_s))


async def _refuse(exchange: Exchange, fault: GatewayFault, dialect: Dialect) -> None:
    """Answer with the fault; if the answer has begun and was not ended in order, cut it visibly short."""
    if exchange.finished:
        return
    if exchange.started:
        await exchange.abort()
        return
    try:
        await exchange.respond(http_of(fault).status, dialect.refusal(fault, exchange.request_id), fault.headers)
    except ClientGone:
        await exchange.abort()


def _describe(exchange: Exchange, method: str, route: str, took_s: float) -> EndedRequest:
    inference = exchange.describe() if exchange.describe is not None else None
    return EndedRequest(exchange.trace, method, route, exchange.status, took_s, exchange.error, inference)


def _known(method: str) -> str:
    """Methods are a label, so strangers may not invent values."""
    return method if method in ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH") else OTHER_METHOD
