"""Who the console is to the authority: an application that signs by a key of its own, registered under a name that follows
from its address, so that consoles of several hosts over one database are several clients.

    console/client.key   the private half, read by the console alone
    console/client.jwks  the public half, by which policy registers it
"""

import hashlib
import json
from pathlib import Path

from appliance.authority.addresses import console_of
from appliance.config import Configuration
from security.clients import ClientDefinition
from security.errors import KeyUnusable
from security.keys import generate_p256, load_or_create_private_key, make_private_directory, write_replacing
from security.oauth.proving import public_key_set
from security.scopes import Scope

CLIENT_KEY = "console/client.key"
CLIENT_KEY_SET = "console/client.jwks"
CALLBACK_PATH = "/callback"
CONSOLE_SCOPES = frozenset(
    {Scope.MODELS_READ, Scope.METRICS_READ, Scope.AUDIT_LOG, Scope.IDENTITY_READ, Scope.IDENTITY_MANAGE}
)
"""What it may ask for; each person's role narrows it. It asks no model anything and opens no sealed body."""


def client_id_of(configuration: Configuration) -> str:
    """The console's name at the authority. Raises: StartRefused."""
    return f"console-{hashlib.sha256(console_of(configuration).encode()).hexdigest()[:10]}"


def redirect_uri_of(configuration: Configuration) -> str:
    """Where the authority sends browsers back to. Raises: StartRefused."""
    return console_of(configuration) + CALLBACK_PATH


def provision_console(state: Path) -> None:
    """Make the key where there is none, and write its public half. Raises: KeyUnusable."""
    make_private_directory((state / CLIENT_KEY).parent)
    key = load_or_create_private_key(state / CLIENT_KEY, generate_p256)
    write_replacing(state / CLIENT_KEY_SET, json.dumps(public_key_set(key)).encode())


def define_console(configuration: Configuration) -> ClientDefinition:
    """What policy registers. Raises: StartRefused, KeyUnusable."""
    path = configuration.state_path / CLIENT_KEY_SET
    try:
        key_set = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise KeyUnusable(f"{path} cannot be read: {error}") from error
    return ClientDefinition(
        name="console",
        kind="application",
        scopes=CONSOLE_SCOPES,
        auth_method="private_key_jwt",
        jwks=key_set,
        redirect_uris=(redirect_uri_of(configuration),),
    )
