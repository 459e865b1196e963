"""The authority's routes, all of scope `public`, and no others: metadata, keys, the endpoints for clients, pages for people,
health. A client's request, in order: (1) without an auditor nothing is decided; (2) the body is read, bounded in size and time;
(3) who failed too often is told to wait; (4) what the decision needs is looked up; (5) client and request are judged at once;
(6) a token's record, or a refusal's, is durable (of refusals beyond the auditor's ration one for all); (7) the answer.
"""

from collections.abc import Sequence
from typing import Protocol

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from appliance.authority.http import ALWAYS, NO_STORE, json_answer, read_body, token_request, unavailable
from appliance.authority.journal import Journal, JournalRationed, JournalUnavailable
from appliance.authority.records import build_decision_record, build_sign_in_record
from security.errors import SecurityFault, SecurityUnavailable
from security.oauth.authority import Answer, Authority, Endpoint
from security.oauth.failure_limit import FailureLimit
from security.oauth.metadata import (
    AUTHORIZATION_PATH,
    DEVICE_AUTHORIZATION_PATH,
    DEVICE_PATH,
    INTROSPECTION_PATH,
    KEY_SET_PATH,
    METADATA_PATH,
    REVOCATION_PATH,
    TOKEN_PATH,
)

PUBLIC_ROUTES = (
    ("GET", METADATA_PATH),
    ("GET", KEY_SET_PATH),
    ("POST", TOKEN_PATH),
    ("POST", REVOCATION_PATH),
    ("POST", INTROSPECTION_PATH),
    ("POST", DEVICE_AUTHORIZATION_PATH),
    ("GET", "/health"),
    ("GET", DEVICE_PATH),
    ("POST", DEVICE_PATH),
    ("GET", AUTHORIZATION_PATH),
    ("POST", AUTHORIZATION_PATH),
    ("POST", "/sign_in"),
    ("POST", "/sign_in/key"),
    ("GET", "/callback"),
    ("GET", "/keys"),
    ("POST", "/keys"),
    ("POST", "/sign_out"),
    ("GET", "/password"),
    ("POST", "/password"),
)
"""Everything that this listener answers. A change here is a change of what strangers see."""

KEY_SET_MAX_AGE_S = 300
_PATIENT_ERRORS = frozenset({"authorization_pending", "slow_down", "use_dpop_nonce"})
"""What a client is told that does everything right: neither a failure nor worth a record."""

log = structlog.get_logger(__name__)


class PagesForPeople(Protocol):
    """Routes that a browser is for."""

    def routes(self) -> list[Route]:
        """All of them."""


class AuthorityApplication:
    """The endpoints and what they need."""

    def __init__(
        self,
        authority: Authority,
        journal: Journal,
        failures: FailureLimit,
        people: Sequence[PagesForPeople] = (),
    ) -> None:
        self._authority = authority
        self._journal = journal
        self._failures = failures
        self._people = people

    def build(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route(METADATA_PATH, self._metadata, methods=["GET"]),
            Route(KEY_SET_PATH, self._key_set, methods=["GET"]),
            Route(TOKEN_PATH, self._token, methods=["POST"]),
            Route(REVOCATION_PATH, self._revoke, methods=["POST"]),
            Route(INTROSPECTION_PATH, self._introspect, methods=["POST"]),
            Route(DEVICE_AUTHORIZATION_PATH, self._begin_device, methods=["POST"]),
            Route("/health", self._health, methods=["GET"]),
            *(route for pages in self._people for route in pages.routes()),
        ]
        app = Starlette(
            routes=routes, exception_handlers={HTTPException: _answer_http_exception, Exception: _answer_fault}
        )
        app.router.redirect_slashes = False
        return app

    async def _metadata(self, _request: Request) -> Response:
        """RFC 8414 section 3."""
        return json_answer(200, self._authority.metadata(), {"Cache-Control": f"max-age={KEY_SET_MAX_AGE_S}"})

    async def _key_set(self, _request: Request) -> Response:
        """RFC 7517 section 5."""
        return json_answer(200, self._authority.key_set(), {"Cache-Control": f"max-age={KEY_SET_MAX_AGE_S}"})

    async def _health(self, _request: Request) -> Response:
        """Alive means: could give a token now."""
        if not self._journal.is_connected:
            return json_answer(503, {"status": "unavailable", "reason": "the audit log is away"}, NO_STORE)
        return json_answer(200, {"status": "ok"}, NO_STORE)

    async def _token(self, request: Request) -> Response:
        return await self._answer(request, "token")

    async def _revoke(self, request: Request) -> Response:
        return await self._answer(request, "revocation")

    async def _introspect(self, request: Request) -> Response:
        return await self._answer(request, "introspection")

    async def _begin_device(self, request: Request) -> Response:
        return await self._answer(request, "device_authorization")

    async def _answer(self, request: Request, endpoint: Endpoint) -> Response:
        """One request to an endpoint for clients."""
        address, port = request.client or ("", 0)
        # (1)
        if not self._journal.is_connected:
            return unavailable("The audit log is away, and nothing is issued without a record")
        # (2)
        try:
            body = await read_body(request)
        except ClientDisconnect:
            return Response(status_code=400)
        except TimeoutError:
            return json_answer(
                408, {"error": "invalid_request", "error_description": "The body took too long"}, NO_STORE
            )
        # (3) Asked again after the only wait in between, so attempts in parallel gain nothing.
        pending = self._authority.parse(endpoint, token_request(request, body))
        client_id = pending.claimed_client_id
        try:
            if retry_after_s := self._failures.retry_after_s(address, client_id):
                return unavailable("Too many failed attempts", status=429, retry_after_s=retry_after_s)
            # (4)
            known = await self._authority.look_up(pending)
            if retry_after_s := self._failures.retry_after_s(address, client_id):
                return unavailable("Too many failed attempts", status=429, retry_after_s=retry_after_s)
            # (5)
            answer = await self._authority.answer(pending, known)
        except SecurityUnavailable as fault:
            log.error("endpoint_unavailable", path=request.url.path, reason=str(fault))
            return unavailable("The definitions of clients and people cannot be read")
        except SecurityFault as fault:
            log.error("endpoint_failed", path=request.url.path, reason=str(fault))
            return unavailable("The authority cannot decide now")
        if answer.error in _PATIENT_ERRORS:
            return _respond(answer)
        if answer.error is not None:
            self._failures.count_failure(address, client_id, is_proven=answer.is_proven)
        # (6)
        if answer.error is not None or endpoint == "token":
            try:
                index = await self._record(answer, address, port)
            except JournalRationed:
                if answer.minted is not None:
                    answer.take_back()
                    return unavailable("Too many tokens were asked for in this minute", status=429, retry_after_s=60)
                index = None  # Strangers must not be able to change what a client is told: it is refused, and counted.
            except JournalUnavailable as fault:
                log.error("token_not_recorded", reason=str(fault))
                answer.take_back()
                return unavailable("The audit log is away, and nothing is issued without a record")
            _log_answer(answer, address, index)
        # (7)
        return _respond(answer)

    async def _record(self, answer: Answer, address: str, port: int) -> int:
        if answer.reused_by:
            detail = "a refresh token or code came back after it was used: all that came of it is void"
            await self._journal.record(
                build_sign_in_record(
                    "refresh_token_reused",
                    "",
                    answer.reused_by,
                    address,
                    port,
                    detail,
                    client_id=answer.client_id or "",
                )
            )
        return await self._journal.record(build_decision_record(answer, address, port))


def _respond(answer: Answer) -> Response:
    return Response(answer.body, answer.status, headers={**dict(answer.headers), **ALWAYS})


def _log_answer(answer: Answer, address: str, index: int | None) -> None:
    if answer.minted is None:
        log.info("token_refused", error=answer.error, source=address, audit_index=index)
    else:
        log.info("token_issued", client_id=answer.client_id, source=address, audit_index=index)


async def _answer_http_exception(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers: dict[str, str] = {**(error.headers or {}), **NO_STORE}
    return json_answer(
        error.status_code, {"error": "not_found" if error.status_code == 404 else "invalid_request"}, headers
    )


async def _answer_fault(_request: Request, _error: Exception) -> Response:
    """A mistake of ours, which the server's log has; the words are RFC 6749's, section 4.1.2.1."""
    return json_answer(500, {"error": "server_error"}, NO_STORE)


def route_list(app: Starlette) -> Sequence[tuple[str, str]]:
    """Method and path of every registered route, for the test that pins them."""
    return [
        (method, route.path)
        for route in app.routes
        if isinstance(route, Route)
        for method in sorted(route.methods or ())
        if method != "HEAD"
    ]
