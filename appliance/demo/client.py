"""What a client of Casemate does, with the standard library only: get a token, fetch a receipt, verify it.

The answer itself is asked for with the `openai` package, in `run`.
"""

import base64
import http.client
import json
import ssl
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.errors import CommandFailed

_TIMEOUT_S = 30.0
_READY_TIMEOUT_S = 2.0
_MAX_BODY_BYTES = 4 << 20


@dataclass(frozen=True)
class Credentials:
    """What an administrator hands a client once."""

    client_id: str
    client_secret: str


class ApplianceClient:
    """Speaks to one appliance whose certificate authority is known from a file."""

    def __init__(self, gateway: str, authority: str, ca_file: Path) -> None:
        self.gateway = gateway
        self.authority = authority
        self.tls = ssl.create_default_context(cafile=str(ca_file))

    def get_token(self, credentials: Credentials, resource: str) -> dict[str, Any]:
        """Ask the authority for an access token (RFC 6749 section 4.4, client_secret_basic)."""
        pair = f"{urllib.parse.quote(credentials.client_id)}:{urllib.parse.quote(credentials.client_secret)}"
        answer = self._request(
            "POST",
            f"{self.authority}/token",
            headers={
                "Authorization": "Basic " + base64.b64encode(pair.encode()).decode(),
                "Content-Type": "application/x-www-form-urlencoded",
            },
            body=urllib.parse.urlencode({"grant_type": "client_credentials", "resource": resource}).encode(),
        )
        token: dict[str, Any] = json.loads(answer)
        return token

    def fetch_receipt(self, token: str, request_id: str) -> bytes:
        """The log's records of one of our own requests, with proofs: the bytes that `audit.receipt` verifies."""
        return self._request(
            "GET", f"{self.gateway}/audit/request/{request_id}", headers={"Authorization": f"Bearer {token}"}
        )

    def is_ready(self) -> bool:
        """Whether the gateway says that a token really came out of the engine lately."""
        try:
            self._request("GET", f"{self.gateway}/ready", headers={}, timeout_s=_READY_TIMEOUT_S)
        except CommandFailed:
            return False
        return True

    def _request(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str],
        body: bytes | None = None,
        timeout_s: float = _TIMEOUT_S,
    ) -> bytes:
        parts = urllib.parse.urlsplit(url)
        connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=timeout_s, context=self.tls)
        try:
            connection.request(method, parts.path, body=body, headers=headers)
            response = connection.getresponse()
            data = response.read(_MAX_BODY_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise CommandFailed(f"{url} cannot be reached: {error}") from error
        finally:
            connection.close()
        if response.status != 200:
            raise CommandFailed(f"{url} answered {response.status}: {data[:500].decode(errors='replace')}")
        return data
