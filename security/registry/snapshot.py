"""All definitions at once, in one transaction: what the policy process holds in memory."""

import json
from types import MappingProxyType

import sqlalchemy as sa

from security.errors import RegistryUnusable
from security.policy.definitions import Definitions
from security.registry.clients import read_clients
from security.registry.database import Database
from security.registry.limits import read_rules
from security.registry.revocations import read_revocations
from security.registry.static_keys import read_keys
from security.registry.tables import MARKS, ROLE_MODELS
from security.registry.users import read_users
from security.scopes import Role


def read_definitions(database: Database) -> Definitions:
    """Read everything. Raises: RegistryUnusable."""
    with database.transaction() as connection:
        generation = connection.execute(sa.select(MARKS.c.value).where(MARKS.c.name == "generation")).scalar_one()
        try:
            role_models = {
                Role(role): tuple(json.loads(models)) for role, models in connection.execute(sa.select(ROLE_MODELS))
            }
        except ValueError as error:
            raise RegistryUnusable(f"the definitions hold a role that does not exist: {error}") from error
        return Definitions(
            generation=generation,
            clients=MappingProxyType({client.client_id: client for client in read_clients(connection)}),
            users=MappingProxyType({user.user_id: user for user in read_users(connection)}),
            static_keys=MappingProxyType({key.key_hash: key for key in read_keys(connection)}),
            rules=tuple(read_rules(connection)),
            role_models=MappingProxyType(role_models),
            revocations=tuple(read_revocations(connection)),
        )
