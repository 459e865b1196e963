"""A key set fetched over TLS from one address, with the certificate authority pinned."""

from pathlib import Path

from security.errors import KeysUnavailable, SecurityUnavailable
from security.oauth.https_client import TIMEOUT_S, HttpsClient
from security.oauth.key_set import MAX_KEY_SET_BYTES
from security.tls import MinimumVersion


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
        self._client = HttpsClient(
            url,
            ca_certificate,
            max_bytes=MAX_KEY_SET_BYTES,
            connect_to=connect_to,
            minimum_version=minimum_version,
            timeout_s=timeout_s,
        )

    async def fetch(self) -> bytes:
        """The document's bytes, at most MAX_KEY_SET_BYTES, parsed by the caller.

        Raises: KeysUnavailable, naming the address.
        """
        try:
            status, body = await self._client.ask()
        except SecurityUnavailable as error:
            raise KeysUnavailable(str(error)) from error
        if status != 200:
            raise KeysUnavailable(f"{self._client.url} answered {status}")
        return body
