"""Requests over TLS to one address, with the certificate authority pinned.

One connection a request, in a thread, so that the event loop never waits for a handshake. No redirects, no proxies, no
environment, no names to resolve: what is asked is exactly the address that was configured.
"""

import asyncio
import http.client
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from security.errors import SecurityMisconfigured, SecurityUnavailable
from security.tls import MinimumVersion, build_client_context

TIMEOUT_S = 5.0


class _PinnedConnection(http.client.HTTPSConnection):
    """Connects to a given address, and checks the certificate for the URL's name all the same."""

    def __init__(
        self, host: str, port: int, connect_to: tuple[str, int], context: ssl.SSLContext, timeout_s: float
    ) -> None:
        super().__init__(host, port, timeout=timeout_s, context=context)
        self._connect_to = connect_to
        self._tls = context
        self._timeout_s = timeout_s

    def connect(self) -> None:
        """Without a name to resolve."""
        plain = socket.create_connection(self._connect_to, self._timeout_s)
        try:
            self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise


class HttpsAnswer(msgspec.Struct, frozen=True):
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def __repr__(self) -> str:
        return f"HttpsAnswer(status={self.status})"


class HttpsOrigin:
    """Asks one server, by any path."""

    def __init__(
        self,
        origin: str,
        ca_certificate: Path | None,
        *,
        max_bytes: int,
        connect_to: tuple[str, int] | None = None,
        minimum_version: MinimumVersion = "1.3",
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        parts = urlsplit(origin)
        if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment or parts.username:
            raise SecurityMisconfigured(f"address {origin!r}: expected https://host:port")
        self.origin = f"https://{parts.netloc}"
        self._host = parts.hostname
        self._port = parts.port or 443
        self._max_bytes = max_bytes
        self._connect_to = connect_to or (self._host, self._port)
        self._timeout_s = timeout_s
        self._ca_certificate = ca_certificate
        self._minimum_version = minimum_version
        self._context: ssl.SSLContext | None = None

    async def ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> HttpsAnswer:
        """The answer, of whatever status; more than `max_bytes` of it is a fault.

        Raises: SecurityUnavailable, naming the address.
        """
        try:
            asking = asyncio.to_thread(self._ask, method, path, body, headers)
            return await asyncio.wait_for(asking, 2 * self._timeout_s)
        except TimeoutError:
            raise SecurityUnavailable(f"{self.origin}{path} did not answer in time") from None

    def _ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> HttpsAnswer:
        url = self.origin + path
        if self._context is None:  # Not at construction: the authority may still be making the file.
            try:
                self._context = build_client_context(self._ca_certificate, minimum_version=self._minimum_version)
            except SecurityMisconfigured as error:
                raise SecurityUnavailable(str(error)) from error
        connection = _PinnedConnection(self._host, self._port, self._connect_to, self._context, self._timeout_s)
        try:
            sent = {"Accept": "application/json", "Connection": "close", **headers}
            connection.request(method, path, body=body, headers=sent)
            # The response owns the socket once the server has said that it will close it.
            with connection.getresponse() as response:
                answer = response.read(self._max_bytes + 1)
        except (OSError, http.client.HTTPException) as error:
            raise SecurityUnavailable(f"{url} cannot be reached: {type(error).__name__}: {error}") from error
        finally:
            connection.close()
        if len(answer) > self._max_bytes:
            raise SecurityUnavailable(f"{url} answered with more than {self._max_bytes} bytes")
        return HttpsAnswer(response.status, response.headers, answer)


class HttpsClient:
    """Asks one URL."""

    def __init__(
        self,
        url: str,
        ca_certificate: Path | None,
        *,
        max_bytes: int,
        connect_to: tuple[str, int] | None = None,
        minimum_version: MinimumVersion = "1.3",
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.url = url
        self._path = urlsplit(url).path or "/"
        self._origin = HttpsOrigin(
            url,
            ca_certificate,
            max_bytes=max_bytes,
            connect_to=connect_to,
            minimum_version=minimum_version,
            timeout_s=timeout_s,
        )

    async def ask(self, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        """Status and body of the answer, at most `max_bytes` of it; names of headers have `_` for `-`.

        Raises: SecurityUnavailable, naming the address.
        """
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self._origin.ask(method, self._path, body, named)
        return answer.status, answer.body
