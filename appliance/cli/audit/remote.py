"""An auditor's side of the API: the same commands, for somebody who has a token and not the folder.

The token is read from a file or standard input, never from the command line, where other users of the machine could see it.
"""

import argparse
import http.client
import json
import ssl
import sys
import urllib.parse
from pathlib import Path
from typing import Any

from appliance.cli.audit.arguments import WrongUsage, read_file
from appliance.cli.terminal import escape_json
from appliance.errors import CommandFailed

TIMEOUT_S = 60.0
MAX_ANSWER_BYTES = 64 << 20
MAX_TOKEN_BYTES = 16 << 10


def add_remote(parser: argparse.ArgumentParser) -> None:
    """`--url` and what goes with it."""
    parser.add_argument("--url", help="ask the appliance at this address (https://…) instead of reading a folder")
    parser.add_argument(
        "--token-file", metavar="FILE", help="with --url: holds an access token with the scope audit.log; - for stdin"
    )
    parser.add_argument("--ca", metavar="FILE", type=Path, help="with --url: who vouches for the server's certificate")
    parser.add_argument(
        "--certificate",
        metavar=("CERTIFICATE", "KEY"),
        nargs=2,
        type=Path,
        help="with --url: the client certificate that the token is bound to, which production asks of auditors",
    )


class RemoteLog:
    """One appliance's API, for one command."""

    def __init__(
        self,
        url: str,
        token: str,
        ca: Path | None,
        certificate: list[Path] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.path.strip("/"):
            raise WrongUsage(f"--url: expected https://HOST:PORT, got {url!r}")
        self._host, self._port = parts.hostname, parts.port
        self._token, self._timeout_s = token, timeout_s
        self._tls = ssl.create_default_context(cafile=None if ca is None else str(ca))
        if certificate is not None:
            self._tls.load_cert_chain(certificate[0], certificate[1])

    def get(self, path: str) -> bytes:
        """Raises: CommandFailed."""
        return self._request("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Raises: CommandFailed."""
        answer: dict[str, Any] = json.loads(self._request("POST", path, json.dumps(body).encode()))
        return answer

    def post_nothing(self, path: str) -> bytes:
        """A POST without a body. Raises: CommandFailed."""
        return self._request("POST", path, None)

    def _request(self, method: str, path: str, body: bytes | None) -> bytes:
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=self._tls)
        headers = {"Authorization": f"Bearer {self._token}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            data = response.read(MAX_ANSWER_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise CommandFailed(f"{self._host}: cannot be reached: {error}") from error
        finally:
            connection.close()
        if response.status != 200:
            raise CommandFailed(f"{path}: answered {response.status}: {_message_of(data)}")
        return data


def open_remote(arguments: argparse.Namespace) -> RemoteLog | None:
    """The API that `--url` names; None without it.

    Raises: WrongUsage.
    """
    if arguments.url is None:
        return None
    if arguments.token_file is None:
        raise WrongUsage("--url needs --token-file")
    token = read_token(arguments.token_file)
    try:
        return RemoteLog(arguments.url, token, arguments.ca, arguments.certificate)
    except OSError as error:
        raise WrongUsage(f"--ca or --certificate: {error}") from error


def read_token(name: str) -> str:
    """From a file, or from standard input (`-`). Raises: WrongUsage."""
    if name == "-":
        return sys.stdin.read(MAX_TOKEN_BYTES).strip()
    return read_file(Path(name), MAX_TOKEN_BYTES).decode("ascii", "replace").strip()


def _message_of(data: bytes) -> str:
    """What the appliance says; ASCII only, for a terminal."""
    try:
        text = str(json.loads(data)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        text = data[:200].decode("ascii", "replace")
    return escape_json(json.dumps(text))[1:-1]
