"""What the commands of `casemate audit` share: folders, keys and files, told apart from wrong usage."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from appliance.cli.main import EXIT_USAGE
from appliance.cli.terminal import escape_json, escape_text, show_bytes
from audit.cosignature import CosignerKey
from audit.entry import Json
from audit.errors import KeyUnusable, MalformedNote
from audit.note import VerifierKey
from audit.signing_key import load_cosigner_key, load_verifier_key

DEFAULT_FOLDER = Path("state") / "audit" / "log"
FOLDER_HELP = "the log's folder (default: %(default)s)"
KEY_HELP = "the log's public key: a vkey (name+id+base64), or a file that holds one"


class WrongUsage(Exception):
    """What was given on the command line cannot be used; the message is for the person there."""


def set_handler(parser: argparse.ArgumentParser, handler: Callable[[argparse.Namespace], int]) -> None:
    """What the command does; wrong usage ends it with a message and its own exit code."""

    def handle(arguments: argparse.Namespace) -> int:
        try:
            return handler(arguments)
        except WrongUsage as error:
            sys.stderr.write(f"casemate: {escape_text(str(error))}\n")
            return EXIT_USAGE

    parser.set_defaults(handler=handle)


def add_folder(parser: argparse.ArgumentParser) -> None:
    """`--dir`."""
    parser.add_argument("--dir", metavar="DIR", type=Path, default=DEFAULT_FOLDER, help=FOLDER_HELP)


def load_key(text: str) -> VerifierKey:
    """The log's key.

    Raises: WrongUsage.
    """
    try:
        return load_verifier_key(text)
    except (KeyUnusable, MalformedNote) as error:
        raise WrongUsage(f"--key: {error}") from error


def load_witnesses(texts: list[str], log: VerifierKey | None = None) -> list[CosignerKey]:
    """Keys of witnesses; the log's own word about itself is not one.

    Raises: WrongUsage.
    """
    try:
        keys = [load_cosigner_key(text) for text in texts]
    except (KeyUnusable, MalformedNote) as error:
        raise WrongUsage(f"--witness: {error}") from error
    if log is not None and any(key.name == log.name for key in keys):
        raise WrongUsage(f"--witness: {log.name} is the log itself; its own post-quantum key is --mldsa-key")
    return keys


def require_folder(path: Path) -> Path:
    """A folder that is there.

    Raises: WrongUsage.
    """
    if not path.is_dir():
        raise WrongUsage(f"{path}: is no folder")
    return path


def read_file(path: Path, max_bytes: int) -> bytes:
    """A whole file of a bounded size.

    Raises: WrongUsage.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise WrongUsage(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > max_bytes:
        raise WrongUsage(f"{path}: has more than {max_bytes} bytes")
    return data


def write_output(data: bytes, path: Path | None) -> None:
    """To a file, or to standard output."""
    if path is not None:
        path.write_bytes(data)
        return
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def write_private_output(data: bytes, path: Path | None) -> None:
    """JSON that others must not read: to a file that is its owner's alone, also where there was one before, or to standard output.

    A terminal gets it escaped: a body holds what somebody sent.

    Raises: WrongUsage.
    """
    if path is None:
        write_output(show_bytes(data), None)
        return
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, 0o600)
            file.truncate()
            file.write(data)
    except OSError as error:
        raise WrongUsage(f"{path}: cannot be written: {error.strerror}") from error


def print_event(event: Json) -> None:
    """A record for a person. ASCII only: what a client once sent must not move the cursor of an auditor's terminal."""
    print(escape_json(json.dumps(event, indent=2, sort_keys=True)))


class Counter:
    """Says on standard error how far it is, once it has taken more than a second."""

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._started_s = self._said_s = time.monotonic()
        self._is_terminal = sys.stderr.isatty()

    def count(self, done: int, total: int) -> None:
        """Told after every bundle."""
        now_s = time.monotonic()
        if now_s - self._said_s >= 1.0:
            self._said_s = now_s
            share = 100 * done // max(total, 1)
            line = f"{self._verb}: {done} of {total} records ({share} %, {now_s - self._started_s:.0f} s)"
            sys.stderr.write(f"\r\x1b[K{line}" if self._is_terminal else f"{line}\n")
            sys.stderr.flush()

    def end(self) -> None:
        """Clear the line."""
        if self._is_terminal and self._said_s != self._started_s:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
