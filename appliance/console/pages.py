"""How the console's answers look: templates with every value escaped, in no frame and no cache, and with nothing to load.

The style sheet is in each page, named in its policy by its digest; there is no script at all. A page of somebody who is signed in
names the moment at which the browser is to leave it for one that shows nothing, so that a screen that was left is blank without
one (NIST SP 800-171 3.1.10, "pattern-hiding display").
"""

import base64
import datetime
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from starlette.responses import RedirectResponse, Response

from appliance.console.sessions import Session
from security.scopes import Scope

LOCKED_PATH = "/locked"
COOKIE = "__Host-casemate-console"
COOKIE_RULES: dict[str, Any] = {"path": "/", "secure": True, "httponly": True, "samesite": "strict"}
FOLDER = Path(__file__).parent / "templates"
NAVIGATION: tuple[tuple[str, str, Scope | None], ...] = (
    ("/", "Overview", None),
    ("/clients", "Clients", Scope.IDENTITY_READ),
    ("/people", "People", Scope.IDENTITY_READ),
    ("/keys", "Keys", Scope.IDENTITY_READ),
    ("/limits", "Limits", Scope.IDENTITY_READ),
    ("/records", "Records", Scope.AUDIT_LOG),
)
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Pages:
    """Renders them."""

    def __init__(self, *, idle_s: float, mode: str, banner: str | None, folder: Path = FOLDER) -> None:
        """
        Args:
            mode: of the appliance; every page says when it is not production.
            banner: the notice before sign-in.
        """
        self._idle_s = idle_s
        self._shared = {"mode": mode, "banner": banner}
        style = (folder / "console.css").read_text(encoding="utf-8")
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        self._policy = (
            f"default-src 'none'; style-src 'sha256-{digest}'; "
            "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
        )
        # Everything is read now: a process that is confined and drained of rights need not open a file for a page.
        sources = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.html"))}
        self._templates = jinja2.Environment(
            loader=jinja2.DictLoader(sources), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
            lstrip_blocks=True, auto_reload=False,
        )  # fmt: skip
        self._templates.globals["style"] = style
        self._templates.filters |= {"moment": format_moment, "pretty": format_json, "thousands": format_number}

    def render(self, name: str, session: Session | None, status: int = 200, **values: Any) -> Response:
        """A page by its template's name without the suffix."""
        headers = {**HEADERS, "Content-Security-Policy": self._policy}
        is_open = session is not None and not session.is_locked
        if is_open:
            headers["Refresh"] = f"{int(self._idle_s) + 1}; url={LOCKED_PATH}"
        context = {"session": session, "navigation": _navigation(session) if is_open else (), **self._shared, **values}
        text = self._templates.get_template(f"{name}.html").render(context)
        return Response(text, status, headers=headers, media_type="text/html")

    def message(self, session: Session | None, title: str, words: str, status: int = 200) -> Response:
        """A sentence."""
        return self.render("message", session, status, title=title, words=words)


def redirect(location: str) -> Response:
    """RFC 9700 section 4.12: 303, so that no form is sent on."""
    return RedirectResponse(location, 303, headers=HEADERS)


def format_moment(seconds: float | None) -> str:
    """A time in UTC, to the second."""
    if seconds is None:
        return "–"
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")


def format_number(number: float) -> str:
    """With thin spaces between thousands."""
    return f"{number:,.0f}".replace(",", "\u202f")


def format_json(value: Mapping[str, Any]) -> str:
    """To be read by people."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def _navigation(session: Session | None) -> tuple[tuple[str, str], ...]:
    scopes = frozenset() if session is None else session.scopes
    return tuple((path, name) for path, name, scope in NAVIGATION if scope is None or scope in scopes)
