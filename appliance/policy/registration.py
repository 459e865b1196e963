"""Registers a client as `casemate client create` does: for the demo and the benches, which need one to begin with."""

from appliance.config import Configuration
from appliance.policy.locations import database_of, load_credentials_key
from security.clients import ClientDefinition
from security.registry.clients import ClientRegistry
from security.registry.database import Database


def register_service(configuration: Configuration, name: str, *, actor: str) -> tuple[str, str]:
    """Register a service of role user. Returns: its id and secret. Raises: RegistryUnusable."""
    database = Database.open(database_of(configuration))
    try:
        registry = ClientRegistry(database, load_credentials_key(configuration.state_path))
        issued = registry.create(ClientDefinition(name=name), actor=actor)
    finally:
        database.close()
    assert issued.secret is not None
    return issued.client.client_id, issued.secret
