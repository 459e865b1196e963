"""Who has which role, and by whose decision: a privileged one needs two people where `two_person_grants` is set.

The first person asks, the second agrees; only then does the role change. A new client or person with a privileged role
exists from the start and can do nothing until the second agrees. What was held before ends with the change: all tokens are
void, and a client's static keys are revoked.
"""

from typing import Any

import sqlalchemy as sa

from security.clients import Client
from security.errors import ClientRejected
from security.policy.definitions import name_accounts_by_one
from security.registry.clients import CUT_OFF_LIFETIME_S, get_client, is_two_person, read_clients
from security.registry.database import Database, Recording
from security.registry.revocations import void_tokens
from security.registry.rows import describe, encode_models
from security.registry.tables import CLIENTS, MARKS, ROLE_MODELS, STATIC_KEYS, USERS
from security.registry.users import find_user, get_user, read_users
from security.scopes import GRANTABLE, PRIVILEGED_ROLES, Role, format_scopes
from security.users import User

Principal = Client | User


class RoleRegistry:
    """Roles of clients and people."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def set_two_person(self, needed: bool, *, actor: str) -> None:
        """Say whether privileged roles need two people; what already is keeps its record of who agreed.

        The record names whom one person alone decided on: they wait for a second from now on, or wait no more.
        """
        if bool(self._database.read_mark("two_person_grants")) == needed:
            return
        with self._database.change("grant_rule_changed", "two_person_grants", actor) as recording:
            where = MARKS.c.name == "two_person_grants"
            recording.connection.execute(MARKS.update().where(where).values(value=int(needed)))
            everybody: list[Principal] = [*read_clients(recording.connection), *read_users(recording.connection)]
            usable = [one for one in everybody if one.role in PRIVILEGED_ROLES and one.disabled_at is None]
            recording.before = {"needed": not needed}
            recording.after = {"needed": needed, "suspended" if needed else "released": name_accounts_by_one(usable)}

    def grant(self, name: str, role: Role, *, actor: str) -> Principal:
        """Give a client or person this role, or ask for it where a second person must agree."""
        with self._database.change("role_granted", name, actor) as recording:
            before = _get(recording, name)
            _verify_may_have(before, role)
            if role in PRIVILEGED_ROLES and is_two_person(recording.connection):
                return self._update(recording, before, pending_role=role.value, pending_by=actor)
            return self._set(recording, before, role, actor, None)

    def approve(self, name: str, *, actor: str, role: Role | None = None) -> Principal:
        """Agree to the role that waits. The second person MUST be another one.

        Args:
            role: what the second person was shown: what waits may have become another role since.
        """
        with self._database.change("role_approved", name, actor) as recording:
            before = _get(recording, name)
            first = before.pending_by if before.pending_role is not None else before.granted_by
            if before.pending_role is None and not before.needs_approval:
                raise ClientRejected(f"{name!r} has no role that waits for a second person")
            asked = before.role if before.pending_role is None else before.pending_role
            if role is not None and role is not asked:
                raise ClientRejected(f"what waits for {name!r} is the role {asked}, not {role}: look at it again")
            if first == actor:
                raise ClientRejected(f"{actor} has asked for this role: another person must agree")
            if before.pending_role is not None:
                return self._set(recording, before, before.pending_role, first or "", actor)
            return self._update(recording, before, approved_by=actor)

    def refuse(self, name: str, *, actor: str) -> Principal:
        """Take back, or refuse, the role that waits."""
        with self._database.change("role_refused", name, actor) as recording:
            return self._update(recording, _get(recording, name), pending_role=None, pending_by=None)

    def pending(self) -> list[Principal]:
        """Everybody who waits for a second person."""
        with self._database.transaction() as connection:
            everybody: list[Principal] = [*read_clients(connection), *read_users(connection)]
        return [one for one in everybody if one.needs_approval or one.pending_role is not None]

    def set_models(self, role: Role, models: tuple[str, ...] | None, *, actor: str) -> None:
        """The models that a role may use at all; None: every one."""
        with self._database.change("role_models_changed", role.value, actor) as recording:
            found = recording.connection.execute(
                sa.select(ROLE_MODELS.c.models).where(ROLE_MODELS.c.role == role.value)
            ).scalar()
            recording.connection.execute(ROLE_MODELS.delete().where(ROLE_MODELS.c.role == role.value))
            if models is not None:
                recording.connection.execute(ROLE_MODELS.insert().values(role=role.value, models=encode_models(models)))
            recording.before, recording.after = {"models": found}, {"models": encode_models(models)}

    def _set(self, recording: Recording, before: Principal, role: Role, first: str, second: str | None) -> Principal:
        kind, name = ("client", before.client_id) if isinstance(before, Client) else ("subject", before.user_id)
        void_tokens(recording.connection, kind, name, self._database.now, CUT_OFF_LIFETIME_S)  # type: ignore[arg-type]
        values: dict[str, Any] = {
            "role": role.value,
            "granted_by": first,
            "approved_by": second,
            "pending_role": None,
            "pending_by": None,
        }
        if isinstance(before, Client):
            self._end_keys(recording, before.client_id)
            # What it had of another role's it cannot keep: the new role's own, narrowed by nothing that was asked before.
            values["scopes"] = format_scopes(GRANTABLE[role])
        return self._update(recording, before, **values)

    def _end_keys(self, recording: Recording, client_id: str) -> None:
        """Static keys are for role `user` only; one of before MUST not come back to life with that role."""
        where = sa.and_(STATIC_KEYS.c.client_id == client_id, STATIC_KEYS.c.revoked_at.is_(None))
        recording.connection.execute(STATIC_KEYS.update().where(where).values(revoked_at=self._database.now))

    def _update(self, recording: Recording, before: Principal, **values: Any) -> Principal:
        if isinstance(before, Client):
            statement = CLIENTS.update().where(CLIENTS.c.client_id == before.client_id)
            recording.target = before.client_id
        else:
            statement = USERS.update().where(USERS.c.user_id == before.user_id)
            recording.target = before.user_id
        recording.connection.execute(statement.values(values))
        after = _get(recording, recording.target)
        recording.before, recording.after = describe(before), describe(after)
        return after


def _get(recording: Recording, name: str) -> Principal:
    if find_user(recording.connection, name) is not None:
        return get_user(recording.connection, name)
    return get_client(recording.connection, name)


def _verify_may_have(principal: Principal, role: Role) -> None:
    if isinstance(principal, Client) and principal.kind == "application":
        raise ClientRejected("an application has no role of its own; the people who sign in have")
    if principal.role is role and principal.pending_role is None:
        raise ClientRejected(f"the role is {role} already")
