"""A key set fetched over TLS from one address, with the certificate authority pinned.

One connection a fetch, in a thread, so that the event loop never waits for a handshake. No redirects, no proxies, no
environment: what is asked for is exactly the address that was configured.
"""

import asyncio
import http.client
import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from security.errors import KeysUnavailable, SecurityMisconfigured
from security.oauth.key_set import MAX_KEY_SET_BYTES
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


class HttpsJwksSource:
    """Fetches `url`; satisfies `key_ring.JwksSource`."""

    def __init__(
        self,
        url: str,
        ca_certificate: Path | None,
        *,
        connect_to: tuple[str, int] | None = None,
        minimum_version: MinimumVersion = "1.3",
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment or parts.username:
            raise SecurityMisconfigured(f"address of a key set {url!r}: expected https://host:port/path")
        self._url = url
        self._host = parts.hostname
        self._port = parts.port or 443
        self._path = parts.path or "/"
        self._connect_to = connect_to or (self._host, self._port)
        self._timeout_s = timeout_s
        self._ca_certificate = ca_certificate
        self._minimum_version = minimum_version
        self._context: ssl.SSLContext | None = None

    async def fetch(self) -> bytes:
        """The document's bytes, at most MAX_KEY_SET_BYTES, parsed by the caller.

        Raises: KeysUnavailable, naming the address.
        """
        try:
            return await asyncio.wait_for(asyncio.to_thread(self._fetch), 2 * self._timeout_s)
        except TimeoutError:
            raise KeysUnavailable(f"{self._url} did not answer in time") from None

    def _fetch(self) -> bytes:
        if self._context is None:  # Not at construction: the authority may still be making the file.
            try:
                self._context = build_client_context(self._ca_certificate, minimum_version=self._minimum_version)
            except SecurityMisconfigured as error:
                raise KeysUnavailable(str(error)) from error
        connection = _PinnedConnection(self._host, self._port, self._connect_to, self._context, self._timeout_s)
        try:
            connection.request("GET", self._path, headers={"Accept": "application/json", "Connection": "close"})
            # The response owns the socket once the server has said that it will close it.
            with connection.getresponse() as response:
                body = response.read(MAX_KEY_SET_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            raise KeysUnavailable(f"{self._url} cannot be fetched: {type(error).__name__}: {error}") from error
        finally:
            connection.close()
        if response.status != 200:
            raise KeysUnavailable(f"{self._url} answered {response.status}")
        if len(body) > MAX_KEY_SET_BYTES:
            raise KeysUnavailable(f"{self._url} answered with more than {MAX_KEY_SET_BYTES} bytes")
        return body
