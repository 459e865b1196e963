"""What the authority's routes share: reading a bounded body, answering in JSON."""

import asyncio
import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from appliance.gateway.exchange import CERTIFICATE, WRITER, StreamWriter
from security.oauth.token_request import MAX_BODY_BYTES, TokenRequest

BODY_TIMEOUT_S = 10.0
NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
ALWAYS = {"X-Content-Type-Options": "nosniff"}


def close_unread(app: ASGIApp) -> ASGIApp:
    """Say that the connection ends with an answer that did not wait for its request's body, as it does (RFC 9112 section 9.6):
    whoever is not told sends the next request into it.
    """

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        async def tell(message: Message) -> None:
            writer: StreamWriter | None = scope.get(WRITER)
            if message["type"] == "http.response.start" and writer is not None and not writer.has_whole_body:
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        await app(scope, receive, tell)

    return serve


def token_request(request: Request, body: bytes) -> TokenRequest:
    """A request to an endpoint for clients, with everything that may say who it is from."""
    return TokenRequest(
        query=request.url.query,
        content_type=request.headers.get("content-type", ""),
        authorization=tuple(request.headers.getlist("authorization")),
        body=body,
        proofs=tuple(request.headers.getlist("dpop")),
        certificate=request.scope.get(CERTIFICATE),
        path=request.url.path,
        address=request.client.host if request.client else "",
        port=request.client.port if request.client else 0,
    )


async def read_body(request: Request) -> bytes:
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


def json_answer(status: int, body: dict[str, Any], headers: dict[str, str]) -> Response:
    """An answer in JSON."""
    content = json.dumps(body, separators=(",", ":")).encode()
    return Response(content, status, headers={**headers, **ALWAYS}, media_type="application/json")


def unavailable(description: str, *, status: int = 503, retry_after_s: int = 1) -> Response:
    """RFC 6749 has no word for this at the token endpoint; section 4.1.2.1's is what clients know."""
    body = {"error": "temporarily_unavailable", "error_description": description}
    return json_answer(status, body, {**NO_STORE, "Retry-After": str(retry_after_s)})
