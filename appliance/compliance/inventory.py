"""People, programs, roles and static keys, from the definitions; in order of their names, without hashes and secrets."""

import datetime
from collections.abc import Iterator

from compliance.installation import HeldRole, Person, Program, UsableKey
from security.clients import Client
from security.policy.definitions import Definitions
from security.scopes import GRANTABLE, PRIVILEGED_ROLES, Role, format_scopes
from security.users import User


def list_people(definitions: Definitions) -> Iterator[Person]:
    """Everybody who may sign in, or might again."""
    for user in sorted(definitions.users.values(), key=lambda user: user.login):
        yield Person(
            user_id=user.user_id,
            login=user.login,
            name=user.name,
            role=user.role.value,
            tenant=user.tenant,
            state=_state_of(user),
            second_factor=_factors_of(user),
            granted_by=user.granted_by,
            approved_by=user.approved_by or "",
            created_at=format_seconds(user.created_at),
        )


def _factors_of(user: User) -> str:
    found = [] if user.totp_secret is None else ["one-time code"]
    return ", ".join([*found, *(["passkey"] if user.passkeys else [])]) or "none"


def list_programs(definitions: Definitions) -> Iterator[Program]:
    """Every client."""
    for client in sorted(definitions.clients.values(), key=lambda client: client.client_id):
        yield Program(
            client_id=client.client_id,
            name=client.name,
            kind=client.kind,
            role=client.role.value,
            tenant=client.tenant,
            state=_state_of(client),
            authentication=client.auth_method,
            scopes=format_scopes(client.scopes),
            granted_by=client.granted_by,
            approved_by=client.approved_by or "",
            created_at=format_seconds(client.created_at),
        )


def list_roles(definitions: Definitions | None, *, two_person_grants: bool) -> Iterator[HeldRole]:
    """Every role of the product, with the models that it is limited to and the enabled accounts that have it."""
    people = [] if definitions is None else [user for user in definitions.users.values() if not user.is_disabled]
    programs = [] if definitions is None else [one for one in definitions.clients.values() if not one.is_disabled]
    for role in Role:
        models = None if definitions is None else definitions.role_models.get(role)
        yield HeldRole(
            role=role.value,
            is_privileged="yes" if role in PRIVILEGED_ROLES else "no",
            needs_two="yes" if role in PRIVILEGED_ROLES and two_person_grants else "no",
            scopes=format_scopes(GRANTABLE[role]),
            models="all" if models is None else " ".join(models) or "none",
            people=sum(user.role is role for user in people),
            programs=sum(client.role is role for client in programs),
        )


def list_static_keys(definitions: Definitions, now: float) -> Iterator[UsableKey]:
    """Every static key, those that are over too."""
    for key in sorted(definitions.static_keys.values(), key=lambda key: key.key_id):
        over = "revoked" if key.revoked_at is not None else "expired" if key.expires_at <= now else "usable"
        yield UsableKey(
            key_id=key.key_id,
            client_id=key.client_id,
            name=key.name,
            networks=" ".join(key.networks),
            state=over,
            created_at=format_seconds(key.created_at),
            expires_at=format_seconds(key.expires_at),
        )


def format_seconds(seconds: float) -> str:
    """`2026-11-25 21:14:29 UTC`."""
    return f"{datetime.datetime.fromtimestamp(int(seconds), datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"


def _state_of(account: User | Client) -> str:
    if account.disabled_at is not None:
        return "disabled"
    return "waits for a second person" if account.needs_approval else "enabled"
