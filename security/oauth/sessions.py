"""People's sessions: what a sign-in is worth to an application, as long as refresh tokens turn over.

A session begins with a code or a device code and ends `session_s` after the person signed in, whatever is used. In it every access
token bears the same `sid`, so that ending the session voids them all.
"""

import msgspec

from security.clients import Client
from security.oauth.granting import Granted, choose_scope, narrow_scope, verify_bound
from security.oauth.minting import Binding, Holder
from security.oauth.refresh_store import Family, RefreshGrant, RefreshStore
from security.scopes import parse_scopes
from security.users import User


class SessionRules(msgspec.Struct, frozen=True, kw_only=True):
    """How long people stay signed in."""

    refresh_idle_s: int
    """A refresh token that is not used for so long is of no use."""
    session_s: int
    """From the sign-in on; then the person signs in again."""
    binds_privileged: bool
    """Roles but `user` get bound tokens only."""


class Sessions:
    """Begins sessions and goes on with them, by the rules."""

    def __init__(self, refresh: RefreshStore, rules: SessionRules) -> None:
        self._refresh = refresh
        self._rules = rules

    def begin(
        self, client: Client, user: User, scope: str, auth_time: int, binding: Binding | None
    ) -> tuple[Granted, str]:
        """A new session of a person with an application. Returns: the grant, and the name of its family of tokens.

        Raises: OAuth2Error.
        """
        self._verify_bound(user, binding)
        ends_at = auth_time + self._rules.session_s
        narrowed = narrow_scope(scope, client, user.role)
        grant = RefreshGrant(
            client_id=client.client_id,
            user_id=user.user_id,
            scope=narrowed,
            auth_time=auth_time,
            key_thumbprint=binding.thumbprint if binding is not None and client.auth_method == "none" else "",
        )
        family, token = self._refresh.begin(grant, idle_s=self._rules.refresh_idle_s, ends_at=ends_at)
        holder = _holder(client, user, auth_time, family, ends_at)
        return Granted(holder=holder, scope=narrowed, refresh_token=token), family

    def go_on(
        self, client: Client, user: User, family: Family, requested: str | None, binding: Binding | None
    ) -> Granted:
        """The next tokens of a session whose refresh token was just spent.

        Raises: OAuth2Error.
        """
        scope = self.verify_going_on(client, user, family, requested, binding)
        replacement = self._refresh.replace(family, idle_s=self._rules.refresh_idle_s)
        holder = _holder(client, user, family.grant.auth_time, family.family, family.ends_at)
        return Granted(holder=holder, scope=scope, refresh_token=replacement)

    def verify_going_on(
        self, client: Client, user: User, family: Family, requested: str | None, binding: Binding | None
    ) -> str:
        """What a mistake must not cost its owner, as it would if the token were spent first. Returns: the scope of the next tokens.

        Raises: OAuth2Error.
        """
        self._verify_bound(user, binding)
        narrowed = narrow_scope(family.grant.scope, client, user.role)
        return choose_scope(requested, parse_scopes(narrowed))

    def _verify_bound(self, user: User, binding: Binding | None) -> None:
        verify_bound(user.role.value, binding, binds_privileged=self._rules.binds_privileged)


def _holder(client: Client, user: User, auth_time: int, family: str, ends_at: int) -> Holder:
    return Holder(
        client_id=client.client_id,
        subject=user.user_id,
        tenant=user.tenant,
        role=user.role.value,
        auth_time=auth_time,
        session=family,
        expires_by=ends_at,
    )
