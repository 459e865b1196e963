"""The authority's routes, all of scope `public`, and no others: metadata, key set, token endpoint, health.

A token request, in order: (1) without an auditor nothing is decided; (2) the body is read, bounded in size and time; (3) who
failed too often is told to wait; (4) the decision; (5) its record, durable; (6) the answer.
"""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from appliance.authority.directory import Directory
from appliance.authority.journal import Journal, JournalUnavailable
from appliance.authority.records import build_decision_record
from security.errors import SecurityUnavailable
from security.oauth.authority import KEY_SET_PATH, METADATA_PATH, TOKEN_PATH, Authority, TokenDecision
from security.oauth.failure_limit import FailureLimit
from security.oauth.token_request import MAX_BODY_BYTES, TokenRequest

PUBLIC_ROUTES = (("GET", METADATA_PATH), ("GET", KEY_SET_PATH), ("POST", TOKEN_PATH), ("GET", "/health"))
"""Everything that this listener answers. A change here is a change of what strangers see."""

BODY_TIMEOUT_S = 10.0
KEY_SET_MAX_AGE_S = 300

_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_ALWAYS = {"X-Content-Type-Options": "nosniff"}

log = structlog.get_logger(__name__)


class AuthorityApplication:
    """The endpoints and what they need."""

    def __init__(self, authority: Authority, journal: Journal, failures: FailureLimit, directory: Directory) -> None:
        self._authority = authority
        self._directory = directory
        self._journal = journal
        self._failures = failures

    def build(self) -> Starlette:
        """The ASGI application."""
        app = Starlette(
            routes=[
                Route(METADATA_PATH, self._metadata, methods=["GET"]),
                Route(KEY_SET_PATH, self._key_set, methods=["GET"]),
                Route(TOKEN_PATH, self._token, methods=["POST"]),
                Route("/health", self._health, methods=["GET"]),
            ],
            exception_handlers={HTTPException: _answer_http_exception},
        )
        app.router.redirect_slashes = False
        return app

    async def _metadata(self, _request: Request) -> Response:
        """RFC 8414 section 3."""
        return _json_answer(200, self._authority.metadata(), {"Cache-Control": f"max-age={KEY_SET_MAX_AGE_S}"})

    async def _key_set(self, _request: Request) -> Response:
        """RFC 7517 section 5."""
        return _json_answer(200, self._authority.key_set(), {"Cache-Control": f"max-age={KEY_SET_MAX_AGE_S}"})

    async def _health(self, _request: Request) -> Response:
        """Alive means: could give a token now."""
        if not self._journal.is_connected:
            return _json_answer(503, {"status": "unavailable", "reason": "the audit log is away"}, _NO_STORE)
        return _json_answer(200, {"status": "ok"}, _NO_STORE)

    async def _token(self, request: Request) -> Response:
        """RFC 6749 section 3.2."""
        address, port = request.client or ("", 0)
        # (1)
        if not self._journal.is_connected:
            return _unavailable("The audit log is away, and nothing is issued without a record")
        # (2)
        try:
            body = await _read_body(request)
        except ClientDisconnect:
            return Response(status_code=400)
        except TimeoutError:
            return _json_answer(
                408, {"error": "invalid_request", "error_description": "The body took too long"}, _NO_STORE
            )
        # (3) Asked again after the only wait in between, so attempts in parallel gain nothing.
        pending = self._authority.parse(_token_request(request, body))
        client_id = pending.claimed_client_id
        if retry_after_s := self._failures.retry_after_s(address, client_id):
            return _unavailable("Too many failed attempts", status=429, retry_after_s=retry_after_s)
        # (4)
        try:
            client = await self._directory.find_client(client_id) if client_id else None
        except SecurityUnavailable as fault:
            log.error("token_endpoint_failed", reason=str(fault))
            return _unavailable("The clients' definitions cannot be read")
        if retry_after_s := self._failures.retry_after_s(address, client_id):
            return _unavailable("Too many failed attempts", status=429, retry_after_s=retry_after_s)
        decision = self._authority.decide(pending, client)
        if decision.error is not None:
            self._failures.count_failure(address, client_id)
        # (5)
        try:
            index = await self._journal.record(build_decision_record(decision, address, port))
        except JournalUnavailable as fault:
            log.error("token_not_recorded", reason=str(fault))
            return _unavailable("The audit log is away, and nothing is issued without a record")
        # (6)
        _log_decision(decision, address, index)
        return Response(decision.body, decision.status, headers={**dict(decision.headers), **_ALWAYS})


def _token_request(request: Request, body: bytes) -> TokenRequest:
    return TokenRequest(
        query=request.url.query,
        content_type=request.headers.get("content-type", ""),
        authorization=tuple(request.headers.getlist("authorization")),
        body=body,
    )


async def _read_body(request: Request) -> bytes:
    """At most one byte more than allowed, which the parser then refuses.

    Raises: TimeoutError, ClientDisconnect.
    """
    body = bytearray()
    async with asyncio.timeout(BODY_TIMEOUT_S):
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                return bytes(body[: MAX_BODY_BYTES + 1])
    return bytes(body)


def _log_decision(decision: TokenDecision, address: str, index: int) -> None:
    if decision.minted is None:
        log.info("token_refused", error=decision.error, source=address, audit_index=index)
    else:
        log.info("token_issued", client_id=decision.client_id, source=address, audit_index=index)


def _json_answer(status: int, body: dict[str, Any], headers: dict[str, str]) -> Response:
    content = json.dumps(body, separators=(",", ":")).encode()
    return Response(content, status, headers={**headers, **_ALWAYS}, media_type="application/json")


def _unavailable(description: str, *, status: int = 503, retry_after_s: int = 1) -> Response:
    """RFC 6749 has no word for this at the token endpoint; section 4.1.2.1's is what clients know."""
    body = {"error": "temporarily_unavailable", "error_description": description}
    return _json_answer(status, body, {**_NO_STORE, "Retry-After": str(retry_after_s)})


async def _answer_http_exception(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers: dict[str, str] = {**(error.headers or {}), **_NO_STORE}
    return _json_answer(
        error.status_code, {"error": "not_found" if error.status_code == 404 else "invalid_request"}, headers
    )


def route_list(app: Starlette) -> Sequence[tuple[str, str]]:
    """Method and path of every registered route, for the test that pins them."""
    return [
        (method, route.path)
        for route in app.routes
        if isinstance(route, Route)
        for method in sorted(route.methods or ())
        if method != "HEAD"
    ]
