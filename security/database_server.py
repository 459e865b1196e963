"""Where the URL of a database server leads: what segments must allow, and what the sandbox lets policy connect to.

As libpq and SQLAlchemy read it: `host`, `hostaddr` and `port` of the query come before what stands ahead of it, each may be
several, and `hostaddr` is where a connection goes while `host` stays the name that the certificate is checked against.

Source: PostgreSQL's documentation, "Database Connection Control Functions"; SQLAlchemy's, of its dialect for PostgreSQL.
"""

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from security.errors import SecurityMisconfigured

DEFAULT_PORT = 5432
_SCHEMES = ("postgresql", "postgresql+psycopg")
_HOST_AND_PORT = re.compile(r"([A-Za-z0-9.-]*):([0-9]+)")


class DatabaseServer(NamedTuple):
    """One place of a database server."""

    host: str
    """An address, a name, or the folder of a Unix socket; empty for the socket where libpq looks by itself."""
    port: int

    @property
    def address(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The host as an address; None if it is a name or a socket."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    @property
    def is_socket(self) -> bool:
        """Whether it is a Unix socket's, on a path or abstract."""
        return not self.host or self.host[0] in "/@"


def find_database_servers(url: str) -> tuple[DatabaseServer, ...]:
    """Every place that a connection may go to, in the order of trial.

    Raises: SecurityMisconfigured, with nothing of the URL in it but its scheme, as it may hold a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise SecurityMisconfigured("is not a URL: expected postgresql://…") from None
    if parts.scheme not in _SCHEMES:
        raise SecurityMisconfigured("expected postgresql://…")
    asked = parse_qs(parts.query)
    words = _split(asked.get("hostaddr") or asked.get("host") or [parts.hostname or ""])
    ports = _split(asked["port"]) if "port" in asked else [str(port or DEFAULT_PORT)] * len(words)
    if len(ports) != len(words) or not all(one.isascii() and one.isdigit() and len(one) <= 5 for one in ports):
        raise SecurityMisconfigured("expected a port for each host, or none")
    return tuple(map(_read_server, words, ports))


def _read_server(word: str, port: str) -> DatabaseServer:
    """SQLAlchemy takes `host=NAME:PORT` as well, for several."""
    own = _HOST_AND_PORT.fullmatch(word)
    return DatabaseServer(own[1], int(own[2])) if own else DatabaseServer(word, int(port))


def _split(values: list[str]) -> list[str]:
    return [one for value in values for one in value.split(",")]
