"""`casemate audit recipient-key` and `open`: an auditor's own key pair, and the sealed body of a record, opened with it.

Both run on the auditor's machine, where the private key is and stays. The appliance gives the ciphertext, the second share and
the escrow, once it is recorded who asks; the record in the log says which ciphertext it is.
"""

import argparse
import base64
import getpass
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from appliance.cli.audit.arguments import WrongUsage, read_file, set_handler, write_private_output
from appliance.cli.audit.remote import add_remote, open_remote
from appliance.cli.commands import Commands, add_command
from appliance.cli.main import EXIT_OK
from audit.errors import BodyRejected, KeyUnusable
from audit.sealing import (
    MAX_KEY_BYTES,
    KeyContext,
    Purpose,
    RecipientPrivateKey,
    SealedBody,
    derive_key,
    fingerprint,
    open_body,
    parse_recipient_private,
    unwrap_share,
)


def add_body_commands(commands: Commands) -> None:
    """Add both."""
    key = add_command(commands, "recipient-key", "make an auditor's key pair for sealed bodies")
    key.add_argument("file", metavar="FILE", type=Path, help="the private key; FILE.pub gets the public one")
    key.add_argument("--kem", choices=("x25519", "p256"), default="x25519", help="p256 where FIPS is asked")
    key.add_argument("--password", action="store_true", help="ask for a password that encrypts the file")
    set_handler(key, _make_key)
    opened = add_command(commands, "open", "print the sealed prompt or answer of a record; is recorded first")
    opened.add_argument("index", metavar="INDEX", type=int, help="an inference_intent's prompt, an outcome's answer")
    opened.add_argument("--key", metavar="FILE", type=Path, required=True, help="your private key (recipient-key)")
    opened.add_argument("--password", action="store_true", help="ask for the key's password")
    opened.add_argument("-o", "--output", metavar="FILE", type=Path, help="write it to a file")
    add_remote(opened)
    set_handler(opened, _open)


def _make_key(arguments: argparse.Namespace) -> int:
    private: RecipientPrivateKey = (
        X25519PrivateKey.generate() if arguments.kem == "x25519" else generate_private_key(SECP256R1())
    )
    password = _ask_password(arguments, twice=True)
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    try:
        fd = os.open(arguments.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise WrongUsage(f"{arguments.file}: cannot be made: {error.strerror}") from error
    with os.fdopen(fd, "wb") as file:
        file.write(pem)
    public = private.public_key()
    path = arguments.file.with_name(f"{arguments.file.name}.pub")
    path.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    print(f"public key  {path} ({fingerprint(public)}): name it in audit.body_recipients")
    return EXIT_OK


def _open(arguments: argparse.Namespace) -> int:
    private = load_recipient_key(arguments.key, arguments)  # Before anything is recorded.
    remote = open_remote(arguments)
    if remote is None:
        raise WrongUsage("open needs --url: the second share is the appliance's to give")
    answer = json.loads(remote.post_nothing(f"/audit/open/{arguments.index}"))
    write_private_output(open_answer(answer, private) + b"\n", arguments.output)
    return EXIT_OK


def open_answer(answer: dict[str, Any], private: RecipientPrivateKey) -> bytes:
    """What was sealed, out of what the appliance gave.

    Raises: BodyRejected when it is not what the record says, or not for this key.
    """
    try:
        purpose: Purpose = "prompt" if answer["purpose"] == "prompt" else "answer"
        own = answer["record"]["unmapped"]["casemate"]
        body = msgspec.convert(own[f"{purpose}_body"], SealedBody)
        sealed = base64.b64decode(answer["ciphertext"], validate=True)
        share = base64.b64decode(answer["share"], validate=True)
        escrow = json.dumps(answer["escrow"]).encode()
        context = KeyContext(answer["tenant"], body.day, body.key_id)
        request_uid = own["request_uid"]
    except (KeyError, TypeError, ValueError, msgspec.MsgspecError) as error:
        raise BodyRejected(f"the appliance's answer is not understood: {error}") from error
    if hashlib.sha256(sealed).hexdigest() != body.sha256:
        raise BodyRejected("the sealed body is not the one that the record names")
    key = derive_key(unwrap_share(escrow, private, context), share, context)
    return open_body(key, context, request_uid, purpose, sealed)


def load_recipient_key(path: Path, arguments: argparse.Namespace) -> RecipientPrivateKey:
    """An auditor's private key from its file; with `--password` the person is asked for one. Raises: WrongUsage."""
    try:
        return parse_recipient_private(read_file(path, MAX_KEY_BYTES), _ask_password(arguments, twice=False))
    except KeyUnusable as error:
        raise WrongUsage(f"{path}: {error}") from error


def _ask_password(arguments: argparse.Namespace, *, twice: bool) -> bytes | None:
    if not arguments.password:
        return None
    password = getpass.getpass("password of the key: ")
    if twice and getpass.getpass("again: ") != password:
        raise WrongUsage("the passwords differ")
    return password.encode()
