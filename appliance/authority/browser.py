"""Answers for browsers: pages in no frame and no cache that load nothing, and redirects that go where we say."""

import base64
import hashlib
from urllib.parse import unquote_plus, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from appliance.authority import pages
from security.oauth.metadata import AUTHORIZATION_PATH, DEVICE_PATH

_STYLE_DIGEST = base64.b64encode(hashlib.sha256(pages.STYLE.encode()).digest()).decode()


def path_of(request: Request) -> str:
    """Where a request wanted to go, with its query."""
    return f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path


def without_max_age(path: str) -> str:
    """The same request, which takes any sign-in."""
    path, _, query = path.partition("?")
    left = [pair for pair in query.split("&") if unquote_plus(pair.partition("=")[0]) != "max_age"]
    return f"{path}?{'&'.join(left)}"


def local_path(then: str) -> str:
    """Where to go on: a page of ours and nothing else."""
    path = then.partition("?")[0]
    return (
        then if path in (DEVICE_PATH, AUTHORIZATION_PATH) and len(then) <= 8192 and then.isprintable() else DEVICE_PATH
    )


def page(text: str, status: int = 200, *, form_target: str = "", script: str = "") -> Response:
    """A page, which may run this script and no other.

    Browsers apply `form-action` to redirects after a form as well, so the application's origin must be in it.
    """
    targets = "'self'"
    if form_target:
        parts = urlsplit(form_target)
        targets += f" {parts.scheme}://{parts.netloc}"
    style = f"style-src 'sha256-{_STYLE_DIGEST}'"
    if script:
        style += f"; script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
    policy = f"default-src 'none'; {style}; form-action {targets}; frame-ancestors 'none'; base-uri 'none'"
    return Response(text, status, headers={**_HEADERS, "Content-Security-Policy": policy}, media_type="text/html")


def redirect(location: str) -> Response:
    """RFC 9700 section 4.12: 303, so that no form is sent on."""
    return RedirectResponse(location, 303, headers=_HEADERS)


def away() -> Response:
    """Something that is needed is not there."""
    return page(pages.message_page("Try again later", "The appliance cannot answer now."), 503)


_HEADERS = {
    "Cache-Control": "no-store",
    "Pragma": "no-cache",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
