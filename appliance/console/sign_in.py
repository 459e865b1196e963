"""Signing in and out, locking and unlocking: the browser's side of the code flow (RFC 6749 section 4.1, RFC 9700 section 2.1).

A sign-in belongs to the browser that began it, by a cookie; the answer must repeat its `state` and name our authority (`iss`, RFC
9207); the code is of no use without the verifier and the session's key (`dpop_jkt`, RFC 9449 section 10). The person must have
signed in at the authority after the sign-in began here, whatever cookie the browser has there.
"""

import hmac
from typing import Any
from urllib.parse import parse_qsl, urlencode

import structlog
from starlette.requests import Request
from starlette.responses import Response

from appliance.console.errors import SignInFailed
from appliance.console.identity import CALLBACK_PATH, CONSOLE_SCOPES
from appliance.console.pages import COOKIE, COOKIE_RULES, LOCKED_PATH, Pages, redirect
from appliance.console.routes import SIGN_IN_PATH, SIGNED_IN, ConsoleRoutes, Visit
from appliance.console.sessions import SIGN_IN_S, Begun, Session, SessionDesk
from appliance.console.tokens import AuthorityClient
from security.errors import MalformedDocument, SecurityUnavailable
from security.oauth.metadata import AUTHORIZATION_PATH
from security.scopes import format_scopes, parse_scopes

BEGUN_COOKIE = "__Host-casemate-console-sign-in"
BEGUN_RULES: dict[str, Any] = {**COOKIE_RULES, "samesite": "lax"}
"""It must come along when the authority, which may have another name, sends the browser back."""
MAX_QUERY_CHARS = 4096

log = structlog.get_logger(__name__)


class SignInRoutes:
    """The routes around a session."""

    def __init__(self, desk: SessionDesk, pages: Pages, authority: AuthorityClient, origin: str) -> None:
        self._desk = desk
        self._pages = pages
        self._authority = authority
        self._origin = origin

    def register(self, routes: ConsoleRoutes) -> None:
        """Add them."""
        routes.public(SIGN_IN_PATH, self.show)
        routes.public("/sign_in/begin", self.begin)
        routes.public(CALLBACK_PATH, self.come_back)
        routes.public(LOCKED_PATH, self.show_locked)
        routes.add("POST", "/lock", SIGNED_IN, self.lock)
        routes.add("POST", "/sign_out", SIGNED_IN, self.sign_out, when_locked=True)

    async def show(self, _request: Request) -> Response:
        """The notice, and the way to the authority."""
        return self._pages.render("sign_in", None)

    async def begin(self, request: Request) -> Response:
        """Send the browser to the authority (RFC 6749 section 4.1.1)."""
        if f"https://{request.headers.get('host', '')}" != self._origin:
            return redirect(
                f"{self._origin}{SIGN_IN_PATH}/begin"
            )  # Cookies and the address to return to have one name.
        left = self._desk.look(request.cookies.get(COOKIE))
        address = request.client.host if request.client else ""
        cookie, begun = self._desk.begin("/" if left is None else left.then, address)
        query = {
            "response_type": "code",
            "client_id": self._authority.client_id,
            "redirect_uri": self._authority.redirect_uri,
            "scope": format_scopes(CONSOLE_SCOPES),
            "state": begun.state,
            "code_challenge": begun.challenge,
            "code_challenge_method": "S256",
            "dpop_jkt": begun.key.thumbprint,
            "max_age": "0",
        }
        answer = redirect(f"{self._authority.issuer}{AUTHORIZATION_PATH}?{urlencode(query)}")
        answer.set_cookie(BEGUN_COOKIE, cookie, max_age=SIGN_IN_S, **BEGUN_RULES)
        return answer

    async def come_back(self, request: Request) -> Response:
        """From the authority, with its answer (RFC 6749 section 4.1.2)."""
        begun = self._desk.take_begun(request.cookies.get(BEGUN_COOKIE))
        try:
            if begun is None:
                raise SignInFailed("no sign-in of this browser waits for an answer")
            code = self._read_answer(request.url.query, begun)
            cookie, then = await self._admit(code, begun, request)
        except SignInFailed as failed:
            log.warning("sign_in_failed", reason=str(failed))
            answer = self._pages.message(None, "Not signed in", "The sign-in did not succeed. Begin again.", 403)
            answer.delete_cookie(BEGUN_COOKIE, **BEGUN_RULES)
            return answer
        except SecurityUnavailable as fault:
            log.error("authority_unavailable", reason=str(fault))
            return self._pages.message(None, "Try again later", "The authority cannot be reached now.", 503)
        answer = self._pages.render("go_on", None, then=then)
        # A page of ours sends the browser on: a redirect would still be the authority's doing, and the cookie not sent along.
        answer.headers["Refresh"] = f"0; url={then}"
        answer.set_cookie(COOKIE, cookie, **COOKIE_RULES)
        answer.delete_cookie(BEGUN_COOKIE, **BEGUN_RULES)
        return answer

    async def show_locked(self, request: Request) -> Response:
        """A page that shows nothing: where every page goes when nobody clicks."""
        session = self._desk.look(request.cookies.get(COOKIE))
        if session is None:
            return redirect(SIGN_IN_PATH)
        return self._pages.render(
            "locked", None, left=session, go_on=SIGN_IN_PATH + "/begin" if session.is_locked else "/"
        )

    async def lock(self, visit: Visit) -> Response:
        """At once."""
        visit.session.is_locked = True
        return redirect(LOCKED_PATH)

    async def sign_out(self, visit: Visit) -> Response:
        """End the session here and at the authority."""
        self._desk.end(visit.request.cookies.get(COOKIE))
        words = "You are signed out, and the session's tokens are void."
        if not await self._revoke(visit.session):
            words = "You are signed out here. The authority could not be told: the session's token ends there when it is idle."
        answer = self._pages.message(None, "Signed out", words)
        answer.delete_cookie(COOKIE, **COOKIE_RULES)
        answer.headers["Clear-Site-Data"] = '"cache"'
        return answer

    async def end_all(self) -> None:
        """The process ends: so do the sessions, at the authority as well if it can be reached."""
        for session in self._desk.drain():
            if not await self._revoke(session):
                return

    def _read_answer(self, query: str, begun: Begun) -> str:
        """The code. Raises: SignInFailed."""
        try:
            pairs = parse_qsl(query[: MAX_QUERY_CHARS + 1], keep_blank_values=True, errors="strict", max_num_fields=16)
        except ValueError:
            raise SignInFailed("the answer cannot be read") from None
        answer = dict(pairs)
        if len(answer) != len(pairs) or len(query) > MAX_QUERY_CHARS:
            raise SignInFailed("the answer repeats a parameter, or is too long")
        if not hmac.compare_digest(answer.get("state", "").encode(), begun.state.encode()):
            raise SignInFailed("the answer is of another sign-in")
        if answer.get("iss") != self._authority.issuer:
            raise SignInFailed("the answer is of another authority")
        if not answer.get("code"):
            raise SignInFailed(f"the authority refused: {answer.get('error', '')[:64]!r}")
        return answer["code"]

    async def _admit(self, code: str, begun: Begun, request: Request) -> tuple[str, str]:
        tokens = await self._authority.exchange_code(code, begun.verifier, begun.key)
        person = await self._authority.describe(tokens)
        if person.auth_time < int(begun.began_at):  # Both clocks are this host's.
            await self._authority.revoke(tokens)
            raise SignInFailed("the person did not sign in anew")
        try:
            scopes = parse_scopes(tokens.scope)
        except MalformedDocument as error:
            raise SignInFailed(f"the authority gave a scope that does not exist: {error}") from None
        left = self._desk.end(request.cookies.get(COOKIE))
        if left is not None:
            await self._revoke(left)
        cookie = self._desk.admit(begun, tokens, person, scopes)
        log.info("signed_in", subject=person.sub, role=person.roles[0].value)
        # Whoever signs in after somebody else begins at the beginning.
        return cookie, begun.then if left is not None and left.subject == person.sub else "/"

    async def _revoke(self, session: Session) -> bool:
        try:
            await self._authority.revoke(session.tokens)
        except SecurityUnavailable as fault:
            log.error("session_not_revoked", subject=session.subject, reason=str(fault))
            return False
        return True
