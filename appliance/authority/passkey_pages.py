"""The page where people register passkeys: a second factor for the next sign-in (`security.passkeys`)."""

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from appliance.authority import pages
from appliance.authority.browser import away, page
from appliance.authority.directory import Directory
from appliance.authority.forms import COOKIE, Forms
from appliance.authority.sign_in import SignInDesk
from security.errors import SecurityUnavailable
from security.passkeys import PasskeyRejected, PasskeyServer

KEYS_PATH = "/keys"
MAX_NAME_CHARS = 40

log = structlog.get_logger(__name__)


class PasskeyRoutes:
    """Registers them for whoever is signed in here."""

    def __init__(self, desk: SignInDesk, directory: Directory, passkeys: PasskeyServer | None) -> None:
        """
        Args:
            passkeys: None where there can be none: no host name, or people of a provider's.
        """
        self._desk = desk
        self._directory = directory
        self._passkeys = passkeys
        self._forms = Forms(desk)

    def routes(self) -> list[Route]:
        """Both public: who asks is found out here."""
        return [
            Route(KEYS_PATH, self._show, methods=["GET"]),
            Route(KEYS_PATH, self._register, methods=["POST"]),
        ]

    async def _show(self, request: Request) -> Response:
        if self._passkeys is None:
            return _not_here()
        session = self._desk.find(request.cookies.get(COOKIE))
        if session is None or session.must_change_password:
            return page(pages.message_page("Passkeys", "Sign in first, at the page for devices."), 403)
        try:
            user = await self._directory.find_user(session.user_id)
        except SecurityUnavailable:
            return away()
        if user is None or user.is_disabled:
            return page(pages.message_page("Passkeys", "The account is not there any more."), 403)
        session.registration = self._passkeys.begin_registration(user)
        names = [passkey.name for passkey in user.passkeys]
        return page(pages.keys_page(session.form_token, names, session.registration.options), script=pages.SCRIPT)

    async def _register(self, request: Request) -> Response:
        if self._passkeys is None:
            return _not_here()
        form = await self._forms.read_signed_in(request)
        if isinstance(form, Response):
            return form
        session, fields = form
        # Asked once: whatever comes of it, the next attempt has another challenge.
        ceremony, session.registration = session.registration, None
        name = fields.get("name", "").strip()[:MAX_NAME_CHARS]
        if ceremony is None or not name or not name.isprintable():
            return page(pages.message_page("Passkeys", "Give the key a name, and begin again."), 400)
        try:
            credential, credential_id, counter = self._passkeys.finish_registration(
                ceremony, fields.get("response", "")
            )
            source = request.client or ("", 0)
            await self._directory.add_passkey(session.user_id, credential, name, (source[0], source[1]))
            self._desk.note_counter(credential_id, counter)
        except PasskeyRejected as refused:
            return page(pages.message_page("Passkeys", str(refused)), 400)
        except SecurityUnavailable as fault:
            log.error("passkey_not_stored", reason=str(fault))
            return page(pages.message_page("Passkeys", "The key could not be stored. Too many, or already there?"), 503)
        return page(pages.message_page("Passkeys", "Registered. It is asked for at the next sign-in."))


def _not_here() -> Response:
    return page(pages.message_page("Passkeys", "There are no passkeys here."), 404)
