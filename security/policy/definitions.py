"""All that policy decides by, as one value: read from the registry at once, held in memory, replaced whole.

Plain values, without SQL: the registry's `snapshot` makes it.
"""

from collections.abc import Iterable
from types import MappingProxyType

import msgspec

from security.clients import Client
from security.oauth.revocations import Revocation
from security.policy.limits import LimitRule
from security.scopes import PRIVILEGED_ROLES, Role
from security.static_keys import StaticKey
from security.users import User


class Definitions(msgspec.Struct, frozen=True, kw_only=True):
    """Who exists, and what they may do."""

    generation: int
    clients: MappingProxyType[str, Client]
    users: MappingProxyType[str, User]
    """By id."""
    static_keys: MappingProxyType[bytes, StaticKey]
    """By stored hash."""
    rules: tuple[LimitRule, ...]
    role_models: MappingProxyType[Role, tuple[str, ...]]
    revocations: tuple[Revocation, ...]

    def find_privileged(self) -> list[Client | User]:
        """Enabled accounts of a privileged role, people first; those that wait for a second person can do nothing, and are none."""
        everybody: list[Client | User] = [*self.users.values(), *self.clients.values()]
        return [one for one in everybody if one.role in PRIVILEGED_ROLES and not one.is_disabled]

    def find_login(self, login: str) -> User | None:
        """The person of this login."""
        return next((user for user in self.users.values() if user.login == login), None)


def name_accounts_by_one(accounts: Iterable[Client | User]) -> list[str]:
    """Of these, the logins and client ids of those to which no second person has agreed."""
    return sorted(
        one.client_id if isinstance(one, Client) else one.login for one in accounts if one.approved_by is None
    )


NO_DEFINITIONS = Definitions(
    generation=-1,
    clients=MappingProxyType({}),
    users=MappingProxyType({}),
    static_keys=MappingProxyType({}),
    rules=(),
    role_models=MappingProxyType({}),
    revocations=(),
)
