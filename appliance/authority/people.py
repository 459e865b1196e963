"""The routes for people: signing in, a device's code, an application's request. HTML, one cookie, a script only where a passkey
is asked for. What protects a form: it must come from our own pages (`Origin`), carry the session's token, and the cookie is not
sent along by other sites. Pages are in no frame, no cache, and load nothing. A sign-in is recorded before its session exists.
"""

from typing import Any

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from appliance.authority import pages
from appliance.authority.browser import away, local_path, page, path_of, redirect, without_max_age
from appliance.authority.directory import Directory
from appliance.authority.forms import COOKIE, Forms
from appliance.authority.journal import Journal, JournalRationed, JournalUnavailable
from appliance.authority.records import build_sign_in_record
from appliance.authority.sign_in import REFUSED, KeyWanted, Session, SignInDesk, SignInRefused, TriedTooOften
from appliance.authority.upstream import LIFETIME_S, UpstreamDesk
from security.errors import ClientRejected, SecurityUnavailable
from security.oauth.authority import Authority
from security.oauth.authorization_request import RefusedRequest, UntrustedRequest
from security.oauth.consent import Approval, Consent
from security.oauth.failure_limit import FailureLimit
from security.oauth.metadata import AUTHORIZATION_PATH, DEVICE_PATH
from security.scopes import GRANTABLE, GRANTED_SCOPES, Scope, parse_scopes

BEGUN_COOKIE = "__Host-casemate-sign-in"
"""Of a sign-in that is under way at a provider."""
CALLBACK_PATH = "/callback"
SIGN_INS = "sign-ins at the provider"
DEVICE_CODES = "device codes"
"""Under this name guesses of user codes are counted."""
_COOKIE_RULES: dict[str, Any] = {"path": "/", "secure": True, "httponly": True, "samesite": "lax"}

log = structlog.get_logger(__name__)


class PeopleRoutes:
    """Everything that a browser is for."""

    def __init__(
        self,
        authority: Authority,
        desk: SignInDesk,
        directory: Directory,
        journal: Journal,
        failures: FailureLimit,
        banner: str | None,
        upstream: UpstreamDesk | None = None,
    ) -> None:
        """
        Args:
            upstream: where people sign in, if not here.
        """
        self._authority = authority
        self._desk = desk
        self._directory = directory
        self._journal = journal
        self._failures = failures
        self._banner = banner
        self._upstream = upstream
        self._forms = Forms(desk)

    def routes(self) -> list[Route]:
        """All of them public: who asks is found out here."""
        return [
            Route(DEVICE_PATH, self._device, methods=["GET"]),
            Route(DEVICE_PATH, self._decide_device, methods=["POST"]),
            Route(AUTHORIZATION_PATH, self._authorize, methods=["GET"]),
            Route(AUTHORIZATION_PATH, self._decide_authorization, methods=["POST"]),
            Route("/sign_in", self._sign_in, methods=["POST"]),
            Route("/sign_in/key", self._sign_in_by_key, methods=["POST"]),
            Route(CALLBACK_PATH, self._come_back, methods=["GET"]),
            Route("/sign_out", self._sign_out, methods=["POST"]),
            Route("/password", self._show_password, methods=["GET"]),
            Route("/password", self._password, methods=["POST"]),
        ]

    async def _device(self, request: Request) -> Response:
        """RFC 8628 section 3.3."""
        session = self._desk.find(request.cookies.get(COOKIE))
        if session is None or session.must_change_password:
            return self._ask_first(session, path_of(request))
        typed = request.query_params.get("user_code", "")
        if not typed:
            return page(pages.device_code_page(session.form_token, session.name))
        address = request.client.host if request.client else ""
        if self._failures.retry_after_s(address, DEVICE_CODES):
            return page(pages.message_page("Too many attempts", "Wait a minute, then try again."), 429)
        grant = self._authority.interactions.find_device(typed)
        if grant is None:
            self._failures.count_failure(address, DEVICE_CODES)
            error = "There is no device with this code, or it has waited too long."
            return page(pages.device_code_page(session.form_token, session.name, error=error), 400)
        client = await self._directory.find_client(grant.client_id)
        name = grant.client_id if client is None else client.name
        scopes = await self._scopes_for(session, parse_scopes(grant.scope))
        return page(pages.device_confirm_page(session.form_token, session.name, name, grant.user_code, scopes))

    async def _decide_device(self, request: Request) -> Response:
        form = await self._forms.read_signed_in(request)
        if isinstance(form, Response):
            return form
        session, fields = form
        # Limited like the page before: who is signed in can send this form without having seen it.
        address = request.client.host if request.client else ""
        if self._failures.retry_after_s(address, DEVICE_CODES):
            return page(pages.message_page("Too many attempts", "Wait a minute, then try again."), 429)
        grant = self._authority.interactions.find_device(fields.get("user_code", ""))
        if grant is None:
            self._failures.count_failure(address, DEVICE_CODES)
            return page(
                pages.message_page("Connect a device", "The device has waited too long. Begin again there."), 400
            )
        if fields.get("decision") != "approve":
            grant.state = "denied"
            return page(pages.message_page("Connect a device", "Refused. The device has no access."))
        grant.user_id, grant.auth_time, grant.state = session.user_id, session.auth_time, "approved"
        return page(pages.message_page("Connect a device", "Done. Go back to the device."))

    async def _authorize(self, request: Request) -> Response:
        """RFC 6749 section 4.1.1."""
        asked = await self._parse_authorization(request.url.query)
        if isinstance(asked, Response):
            return asked
        session = self._desk.find(request.cookies.get(COOKIE), max_age_s=asked.max_age_s)
        if session is None or session.must_change_password:
            # Who comes back from there has signed in just now, however long the way took.
            return self._ask_first(session, without_max_age(path_of(request)))
        scopes = await self._scopes_for(session, parse_scopes(asked.scope))
        shown = pages.consent_page(
            session.form_token, session.name, asked.client.definition.name, request.url.query, scopes
        )
        return page(shown, form_target=asked.redirect_uri)

    async def _decide_authorization(self, request: Request) -> Response:
        form = await self._forms.read_signed_in(request)
        if isinstance(form, Response):
            return form
        session, fields = form
        asked = await self._parse_authorization(fields.get("query", ""))
        if isinstance(asked, Response):
            return asked
        approval = Approval(session.user_id, session.auth_time) if fields.get("decision") == "approve" else None
        return redirect(asked.answer(approval))

    async def _sign_in(self, request: Request) -> Response:
        fields = await self._forms.read(request)
        if isinstance(fields, Response):
            return fields
        login, then = fields.get("login", "")[:64], local_path(fields.get("then", ""))
        if self._upstream is not None:
            return self._send_upstream(self._upstream, then, request)
        address = request.client.host if request.client else ""
        if self._failures.retry_after_s(address, login):
            return page(pages.message_page("Too many attempts", "Wait a minute, then try again."), 429)
        try:
            entered = await self._desk.sign_in(
                login,
                fields.get("password", ""),
                fields.get("code", "").strip(),
                # Asked again when it is their turn, so that attempts in parallel gain nothing.
                may_try=lambda: not self._failures.retry_after_s(address, login),
            )
        except TriedTooOften:
            return page(pages.message_page("Too many attempts", "Wait a minute, then try again."), 429)
        except SignInRefused as refused:
            return await self._refuse(request, login, then, refused)
        except SecurityUnavailable as fault:
            log.error("sign_in_unavailable", reason=str(fault))
            return away()
        if isinstance(entered, KeyWanted):
            return page(pages.key_page(then, entered.ticket, entered.options), script=pages.SCRIPT)
        return await self._enter(request, then, *entered, "by password and code")

    async def _sign_in_by_key(self, request: Request) -> Response:
        """The second step of a sign-in, for a person with a passkey."""
        fields = await self._forms.read(request)
        if isinstance(fields, Response):
            return fields
        then, ticket = local_path(fields.get("then", "")), fields.get("ticket", "")
        address = request.client.host if request.client else ""
        login = self._desk.find_login(ticket)
        if self._failures.retry_after_s(address, login):
            return page(pages.message_page("Too many attempts", "Wait a minute, then try again."), 429)
        try:
            entered = await self._desk.sign_in_by_key(ticket, fields.get("response", ""))
        except SignInRefused as refused:
            return await self._refuse(request, login, then, refused)
        except SecurityUnavailable as fault:
            log.error("sign_in_unavailable", reason=str(fault))
            return away()
        return await self._enter(request, then, *entered, "by password and passkey")

    async def _refuse(self, request: Request, login: str, then: str, refused: SignInRefused) -> Response:
        address, port = request.client or ("", 0)
        self._failures.count_failure(address, login)
        record = build_sign_in_record("user_sign_in_failed", login, refused.user_id, address, port, str(refused))
        if not await self._record(record):
            return away()
        return page(pages.sign_in_page(then, banner=self._banner, error=REFUSED, login=login), 401)

    async def _enter(self, request: Request, then: str, cookie: str, session: Session, how: str) -> Response:
        """A sign-in is recorded before its session can be used."""
        address, port = request.client or ("", 0)
        record = build_sign_in_record("user_signed_in", session.login, session.user_id, address, port, how)
        if not await self._record(record):
            self._desk.end(cookie)
            return away()
        if session.must_change_password:
            answer: Response = page(pages.password_page(then, session.form_token))
        else:
            answer = redirect(then)
        answer.set_cookie(COOKIE, cookie, **_COOKIE_RULES)
        return answer

    def _send_upstream(self, upstream: UpstreamDesk, then: str, request: Request) -> Response:
        cookie, location = upstream.begin(then, request.client.host if request.client else "")
        answer = redirect(location)
        answer.set_cookie(BEGUN_COOKIE, cookie, max_age=LIFETIME_S, **_COOKIE_RULES)
        return answer

    async def _come_back(self, request: Request) -> Response:
        """From the provider, with its answer."""
        if self._upstream is None:
            return page(pages.message_page("Sign in", "People sign in here, and nowhere else."), 404)
        address, port = request.client or ("", 0)
        if self._failures.retry_after_s(address, SIGN_INS):
            return page(pages.message_page("Too many attempts", "Wait a minute, then try again."), 429)
        try:
            user, then = await self._upstream.finish(request.cookies.get(BEGUN_COOKIE), request.url.query)
        except SignInRefused as refused:
            self._failures.count_failure(address, SIGN_INS)
            record = build_sign_in_record("user_sign_in_failed", "", "", address, port, str(refused))
            if not await self._record(record):
                return away()
            return page(pages.message_page("Not signed in", "The sign-in did not succeed. Begin again."), 401)
        except SecurityUnavailable as fault:
            log.error("provider_unavailable", reason=str(fault))
            return away()
        cookie, session = self._desk.admit(user)
        answer = await self._enter(request, then, cookie, session, f"by the provider {self._upstream.settings.name}")
        answer.delete_cookie(BEGUN_COOKIE, **_COOKIE_RULES)
        return answer

    async def _sign_out(self, request: Request) -> Response:
        form = await self._forms.read_signed_in(request)
        if isinstance(form, Response):
            return form
        session, _ = form
        self._desk.end(request.cookies.get(COOKIE))
        address, port = request.client or ("", 0)
        await self._record(build_sign_in_record("user_signed_out", session.login, session.user_id, address, port, ""))
        answer = page(pages.message_page("Signed out", "You are signed out of these pages."))
        answer.delete_cookie(COOKIE, **_COOKIE_RULES)
        return answer

    async def _show_password(self, request: Request) -> Response:
        session = self._desk.find(request.cookies.get(COOKIE))
        if session is None or self._upstream is not None:
            return page(pages.message_page("Password", "Sign in first, at the page for devices."), 403)
        return page(pages.password_page(DEVICE_PATH, session.form_token))

    async def _password(self, request: Request) -> Response:
        form = await self._forms.read_signed_in(request, may_have_to_change=True)
        if isinstance(form, Response):
            return form
        session, fields = form
        if self._upstream is not None:
            return page(pages.message_page("Password", "Passwords are the identity provider's."), 404)
        then, password = local_path(fields.get("then", "")), fields.get("password", "")
        try:
            if password != fields.get("again"):
                raise ClientRejected("The two are not the same.")
            source = request.client or ("", 0)
            await self._desk.change_password(session, fields.get("current", ""), password, (source[0], source[1]))
        except SignInRefused as refused:
            return await self._refuse_change(request, session, then, refused)
        except ClientRejected as refused:
            return page(pages.password_page(then, session.form_token, error=str(refused)), 400)
        except SecurityUnavailable:
            return away()
        return redirect(then)

    async def _refuse_change(self, request: Request, session: Session, then: str, refused: SignInRefused) -> Response:
        """Whoever has somebody's session must not find their password out."""
        address, port = request.client or ("", 0)
        record = build_sign_in_record(
            "user_sign_in_failed", session.login, session.user_id, address, port, str(refused)
        )
        if not await self._record(record):
            return away()
        error = "The current password is not right, or the account is locked."
        return page(pages.password_page(then, session.form_token, error=error), 403)

    def _ask_first(self, session: Session | None, then: str) -> Response:
        if session is None and self._upstream is not None:
            settings = self._upstream.settings
            shown = pages.provider_page(then, settings.name, banner=self._banner)
            return page(shown, form_target=settings.authorization_endpoint)
        if session is None:
            return page(pages.sign_in_page(then, banner=self._banner))
        return page(pages.password_page(then, session.form_token))

    async def _scopes_for(self, session: Session, scopes: frozenset[Scope]) -> list[Scope]:
        """What the application would really get, in a fixed order."""
        user = await self._directory.find_user(session.user_id)
        allowed = frozenset() if user is None else scopes & GRANTABLE[user.role]
        return [scope for scope in GRANTED_SCOPES if scope in allowed]

    async def _parse_authorization(self, query: str) -> Consent | Response:
        try:
            return await self._authority.read_authorization(query)
        except UntrustedRequest as refused:
            return page(pages.message_page("This request cannot be answered", str(refused)), 400)
        except RefusedRequest as refused:
            return redirect(refused.location)
        except SecurityUnavailable:
            return away()

    async def _record(self, event: bytes) -> bool:
        try:
            await self._journal.record(event)
        except JournalRationed:
            return True  # A failure among many, counted with them.
        except JournalUnavailable as fault:
            log.error("sign_in_not_recorded", reason=str(fault))
            return False
        return True
