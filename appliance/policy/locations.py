"""Where the definitions lie, and the key under which their credentials are hashed.

policy/definitions/definitions.sqlite  the default database, in a folder of its own
policy/credentials.key                 made by whoever comes first: supervisor or command
"""

from pathlib import Path

from appliance.config import Configuration
from security.keys import load_or_create_secret, make_private_directory

DATABASE_FILE = "policy/definitions/definitions.sqlite"
CREDENTIALS_FILE = "policy/credentials.key"


def database_of(configuration: Configuration) -> Path | str:
    """The file or URL of the definitions."""
    return configuration.policy.database_url or configuration.state_path / DATABASE_FILE


def load_credentials_key(state: Path) -> bytes:
    """The key of all stored hashes. Raises: KeyUnusable."""
    path = state / CREDENTIALS_FILE
    make_private_directory(path.parent)
    return load_or_create_secret(path)
