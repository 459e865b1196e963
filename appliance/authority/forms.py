"""Forms that browsers send: only from pages of ours, and where somebody must be signed in, only with their session's token."""

import hmac

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from appliance.authority import pages
from appliance.authority.browser import page
from appliance.authority.http import read_body
from appliance.authority.sign_in import Session, SignInDesk
from security.oauth.errors import OAuth2Error
from security.oauth.token_request import parse_form

COOKIE = "__Host-casemate"


class Forms:
    """Reads them."""

    def __init__(self, desk: SignInDesk) -> None:
        self._desk = desk

    async def read(self, request: Request) -> dict[str, str] | Response:
        """A form from a page of ours, each field once; or the answer that refuses it."""
        origin = request.headers.get("origin")
        if origin != f"https://{request.headers.get('host', '')}":
            return page(pages.message_page("Begin again", "The form did not come from a page of this server."), 403)
        try:
            pairs = parse_form(await read_body(request))
        except (OAuth2Error, TimeoutError):
            return page(pages.message_page("Begin again", "The form cannot be read."), 400)
        except ClientDisconnect:
            return Response(status_code=400)
        if len({name for name, _ in pairs}) != len(pairs):
            return page(pages.message_page("Begin again", "The form cannot be read."), 400)
        return dict(pairs)

    async def read_signed_in(
        self, request: Request, *, may_have_to_change: bool = False
    ) -> tuple[Session, dict[str, str]] | Response:
        """A form of somebody who is signed in; or the answer that refuses it."""
        fields = await self.read(request)
        if isinstance(fields, Response):
            return fields
        session = self._desk.find(request.cookies.get(COOKIE))
        if session is None or (session.must_change_password and not may_have_to_change):
            return page(pages.message_page("Sign in again", "You are not signed in any more. Begin again."), 403)
        if not hmac.compare_digest(fields.get("form_token", "").encode(), session.form_token.encode()):
            return page(pages.message_page("Begin again", "The form is not from this session."), 403)
        return session, fields
