"""Token exchange (RFC 8693) as an extension grant of authlib's, which has none: a service acts for the person whose access
token it was given, never for longer and never for more.
"""

from typing import Any

from authlib.oauth2.rfc6749 import BaseGrant, TokenEndpointMixin

from security.clients import Client
from security.errors import TokenRejected
from security.oauth.access_token import MAX_ACTORS, AccessToken
from security.oauth.errors import InvalidGrantError, InvalidRequestError
from security.oauth.grant_types import ACCESS_TOKEN_TYPE, EXCHANGE_GRANT, JWT_TYPE
from security.oauth.granting import Granted, choose_scope
from security.oauth.grants import METHODS
from security.oauth.minting import Holder
from security.scopes import GRANTABLE


class ExchangeGrant(BaseGrant, TokenEndpointMixin):  # type: ignore[misc]  # authlib has no types
    """A service, for the person whose access token it was given."""

    GRANT_TYPE = EXCHANGE_GRANT
    TOKEN_ENDPOINT_AUTH_METHODS = METHODS

    def validate_token_request(self) -> None:
        """Find out for whom and for what. Raises: OAuth2Error."""
        client = self.authenticate_token_endpoint_client().definition
        subject = self._validate_subject()
        self._verify_actor(client)
        self._verify_subject(subject, client)
        self.request.user = self._grant(subject, client)

    def create_token_response(self) -> tuple[int, dict[str, Any], list[tuple[str, str]]]:
        """Sign it."""
        granted: Granted = self.request.user
        token = self.generate_token(user=granted, scope=granted.scope, include_refresh_token=False)
        self.save_token(token)
        return 200, token, self.TOKEN_RESPONSE_HEADER

    def _validate_subject(self) -> AccessToken:
        form = self.request.form
        token, kind = form.get("subject_token"), form.get("subject_token_type")
        if token is None or kind is None:
            raise InvalidRequestError("subject_token and subject_token_type are required")
        if kind not in (ACCESS_TOKEN_TYPE, JWT_TYPE):
            raise InvalidRequestError("subject_token_type is not supported")
        if form.get("requested_token_type", ACCESS_TOKEN_TYPE) not in (ACCESS_TOKEN_TYPE, JWT_TYPE):
            raise InvalidRequestError("requested_token_type is not supported")
        return self._validate(token, "subject_token is not valid")

    def _verify_actor(self, client: Client) -> None:
        """The actor is the authenticated client; a token that says so too is welcome, any other is not."""
        form = self.request.form
        token, kind = form.get("actor_token"), form.get("actor_token_type")
        if token is None and kind is None:
            return
        if token is None or kind not in (ACCESS_TOKEN_TYPE, JWT_TYPE):
            raise InvalidRequestError("actor_token and actor_token_type belong together")
        if self._validate(token, "actor_token is not valid").subject != client.client_id:
            raise InvalidRequestError("actor_token is not of this client")

    def _verify_subject(self, subject: AccessToken, client: Client) -> None:
        if subject.subject == subject.client_id:
            raise InvalidRequestError("subject_token is not of a person")
        if subject.tenant != client.tenant:
            raise InvalidRequestError("subject_token is of another tenant")
        if subject.is_bound and self.request.binding is None:
            raise InvalidRequestError("subject_token is bound: the new token must be bound too")

    def _grant(self, subject: AccessToken, client: Client) -> Granted:
        try:
            user = self.server.find_person(subject.subject)
        except InvalidGrantError:
            # RFC 8693 section 2.2.2: invalid_request, whatever makes a subject token unacceptable.
            raise InvalidRequestError("subject_token is of a person who may not sign in") from None
        if (user.role, user.tenant) != (subject.role, subject.tenant):
            raise InvalidRequestError("subject_token is of before a change of role")
        allowed = subject.scopes & client.scopes & GRANTABLE[user.role]
        actors = (client.client_id, *(subject.actors or (subject.client_id,)))
        if len(actors) > MAX_ACTORS:
            # Leaving out the first of them would hide through whose hands the token came.
            raise InvalidRequestError(f"subject_token was exchanged too often: {MAX_ACTORS} may have acted")
        holder = Holder(
            client_id=client.client_id,
            subject=subject.subject,
            tenant=subject.tenant,
            role=user.role.value,
            actors=actors,
            session=subject.session,
            expires_by=subject.expires_at,
        )
        scope = choose_scope(self.request.payload.scope, allowed)
        return Granted(holder=holder, scope=scope, issued_token_type=ACCESS_TOKEN_TYPE)

    def _validate(self, token: str, refusal: str) -> AccessToken:
        try:
            accepted: AccessToken = self.server.shared.own_tokens.validate(token)
        except TokenRejected:
            raise InvalidRequestError(refusal) from None
        return accepted
