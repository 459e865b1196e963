"""The authorization endpoint's half of the code grant, on authlib's: what an application asks of a person, and what it is told
(RFC 6749 section 4.1.1, RFC 7636, RFC 9207).

Two kinds of refusal: while client or redirect URI are not known to be right, the person is told and nobody is redirected
(section 4.1.2.1); after that errors go to the application. What authlib would put into its refusals (the redirect URI, the
response type) is checked here first: it repeats them, and fails on its own words when they hold a quotation mark.
"""

import re
from typing import Any

import msgspec
from authlib.oauth2.rfc9207 import IssuerParameter

from security.oauth.authority_request import AuthorityRequest
from security.oauth.authorization_request import MAX_STATE_CHARS
from security.oauth.errors import InvalidClientError, InvalidRequestError, OAuth2Error
from security.oauth.grants import CHALLENGE, CodeGrant
from security.oauth.interactions import AgreedGrant
from security.oauth.registered_client import RegisteredClient

_MAX_AGE = re.compile("[0-9]{1,9}", re.ASCII)


class Approval(msgspec.Struct, frozen=True):
    """The person who agreed: what authlib calls the user that grants."""

    user_id: str
    auth_time: int


class AuthorizationCode(CodeGrant):
    """An application asks for a code."""

    @classmethod
    def check_authorization_endpoint(cls, _request: AuthorityRequest) -> bool:
        """There is no other grant with an authorization endpoint: what else is asked for is refused below."""
        return True

    @staticmethod
    def validate_authorization_redirect_uri(request: AuthorityRequest, client: RegisteredClient | None) -> str:
        """Where the answer goes. Raises: OAuth2Error in words for the person."""
        if client is None or not client.definition.redirect_uris:
            raise InvalidClientError("The application is not known.")
        given: str | None = request.payload.redirect_uri
        redirect_uri = given or client.get_default_redirect_uri()
        if redirect_uri is None:
            raise InvalidRequestError("The application did not say where to return to.")
        if not client.check_redirect_uri(redirect_uri):
            raise InvalidRequestError("The address to return to is not registered.")
        return redirect_uri

    def validate_authorization_request(self) -> str:
        """Check everything. Raises: OAuth2Error, with the redirect URI once that is known to be right."""
        client = self.server.query_client(self.request.payload.client_id)
        redirect_uri = self.validate_authorization_redirect_uri(self.request, client)
        try:
            self._verify_details()
            super().validate_authorization_request()
        except OAuth2Error as error:
            error.redirect_uri = redirect_uri
            raise
        return redirect_uri

    def _verify_details(self) -> None:
        data: dict[str, str] = self.request.payload.data
        if self.request.parsed.has_repeated:
            raise InvalidRequestError
        if data.get("response_type") is None or len(data.get("state", "")) > MAX_STATE_CHARS:
            raise InvalidRequestError
        if data["response_type"] != "code":
            raise OAuth2Error(error="unsupported_response_type")
        for name in ("request", "request_uri"):
            if name in data:
                raise OAuth2Error(error=f"{name}_not_supported")
        if "dpop_jkt" in data and not CHALLENGE.fullmatch(data["dpop_jkt"]):
            raise InvalidRequestError
        if "max_age" in data and not _MAX_AGE.fullmatch(data["max_age"]):
            raise InvalidRequestError
        self.server.verify_targets(self.request.parsed.resources)

    def save_authorization_code(self, code: str, request: AuthorityRequest) -> None:
        """Keep what the person agreed to."""
        approval: Approval = request.user
        agreed = AgreedGrant(
            client_id=request.client.get_client_id(),
            user_id=approval.user_id,
            redirect_uri=self.redirect_uri,
            redirect_uri_was_given=request.payload.redirect_uri is not None,
            scope=request.scope,
            challenge=request.form["code_challenge"],
            auth_time=approval.auth_time,
            key_thumbprint=request.form.get("dpop_jkt", ""),
        )
        self.server.shared.interactions.keep_code(code, agreed)


class OwnIssuer(IssuerParameter):  # type: ignore[misc]  # authlib has no types
    """RFC 9207: every answer says whose it is, so that nobody can pass one off as another's."""

    def __init__(self, issuer: str) -> None:
        self._issuer = issuer

    def get_issuer(self) -> str:
        """Ours."""
        return self._issuer


class Consent:
    """A request that may be shown to a person, and waits for an answer."""

    def __init__(self, server: Any, grant: AuthorizationCode) -> None:
        self._server = server
        self._grant = grant

    @property
    def client(self) -> RegisteredClient:
        """Who asks."""
        client: RegisteredClient = self._grant.client
        return client

    @property
    def redirect_uri(self) -> str:
        """Where the answer goes."""
        uri: str = self._grant.redirect_uri
        return uri

    @property
    def scope(self) -> str:
        """What the application asks for."""
        scope: str = self._grant.request.scope
        return scope

    @property
    def max_age_s(self) -> int | None:
        """How long ago the person may have signed in (RFC 9470 section 5); None: as long as the session lasts. Whoever relies on it
        MUST look at `auth_time` in the token as well.
        """
        asked: str | None = self._grant.request.payload.data.get("max_age")
        return None if asked is None else int(asked)

    def answer(self, approval: Approval | None) -> str:
        """Where to send the browser back, with a code, or with a refusal where there is no approval."""
        location: str = self._server.create_authorization_response(
            self._grant.request, grant_user=approval, grant=self._grant
        ).location
        return location
