"""Where a load goes, and as whom: an OpenAI endpoint over HTTP or HTTPS, with a bearer token, client credentials or neither."""

import ssl
import urllib.parse

import msgspec

from appliance.errors import CommandFailed


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint."""

    url: str
    """Up to the host and port, or to the path before `/v1`."""
    model: str
    token: str = ""
    ca_file: str = ""
    """Certificate authority; empty: the system's."""
    verify: bool = True
    ignores_eos: bool = True
    """Whether answers are asked for that have all their tokens, which is no parameter of OpenAI's own API."""

    @property
    def host(self) -> str:
        """Name or address."""
        return urllib.parse.urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """TCP port."""
        parts = urllib.parse.urlsplit(self.url)
        return parts.port or (443 if parts.scheme == "https" else 80)

    def path(self, route: str) -> str:
        """Of a route below `/v1`."""
        return urllib.parse.urlsplit(self.url).path.rstrip("/").removesuffix("/v1") + "/v1" + route

    def tls(self) -> ssl.SSLContext | None:
        """How the server is checked; None for plain HTTP.

        Raises: CommandFailed when the certificate authority cannot be read.
        """
        if urllib.parse.urlsplit(self.url).scheme != "https":
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
        except OSError as error:
            raise CommandFailed(f"--ca-file {self.ca_file}: {error}") from error
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def request(self, route: str, body: bytes) -> bytes:
        """The bytes of one HTTP request."""
        token = f"authorization: Bearer {self.token}\r\n" if self.token else ""
        head = (
            f"POST {self.path(route)} HTTP/1.1\r\nhost: {self.host}:{self.port}\r\n{token}"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body
