"""The private key of whoever runs a command: a file, or a token behind PKCS#11. Its passphrase or PIN is asked for."""

import contextlib
import getpass
import sys
from collections.abc import Iterator
from pathlib import Path

from appliance.errors import CommandFailed
from security.model_signing.signer import ModelSigner, load_signer
from security.model_signing.token import SCHEME, open_token_signer, parse_token_uri

KEY_HELP = "the private key on P-256, P-384 or P-521: a PEM file, or a pkcs11: URI with token, object and module-path"


@contextlib.contextmanager
def open_signer(key: str, *, chain: Path | None = None) -> Iterator[ModelSigner]:
    """A signer for as long as the context lasts.

    Args:
        key: a path, or a pkcs11: URI.
        chain: certificates to sign with.
    Raises: KeyUnusable, CommandFailed without a terminal to ask at.
    """
    if key.startswith(SCHEME):
        with open_token_signer(parse_token_uri(key), ask, chain=chain) as signer:
            yield signer
    else:
        yield load_signer(Path(key), ask, chain=chain)


def ask(what: str) -> str:
    """Ask at the terminal; a secret never comes from an argument or a variable."""
    if not sys.stdin.isatty():
        raise CommandFailed(f"{what}: there is no terminal to ask at")
    return getpass.getpass(f"{what[0].upper()}{what[1:]}: ")
