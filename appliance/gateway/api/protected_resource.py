"""`GET /.well-known/oauth-protected-resource`: how to get a token for this gateway (RFC 9728 section 3). Public, and the
same for everybody.
"""

import msgspec

from appliance.gateway.exchange import Exchange
from security.scopes import GRANTED_SCOPES

PATH = "/.well-known/oauth-protected-resource"


class ProtectedResource(msgspec.Struct, frozen=True, kw_only=True):
    """The document."""

    resource: str
    authorization_servers: tuple[str, ...]
    scopes_supported: tuple[str, ...]
    bearer_methods_supported: tuple[str, ...] = ("header",)
    resource_name: str = "Casemate"
    dpop_signing_alg_values_supported: tuple[str, ...] = ()
    tls_client_certificate_bound_access_tokens: bool = False

    @property
    def metadata_url(self) -> str:
        """Where the document is (section 3.1)."""
        return self.resource + PATH

    def encode(self) -> bytes:
        """As JSON; what is not offered is left out."""
        document = msgspec.structs.asdict(self)
        return msgspec.json.encode({name: value for name, value in document.items() if value or name == "resource"})


UNNAMED = ProtectedResource(resource="https://localhost", authorization_servers=(), scopes_supported=GRANTED_SCOPES)
"""For a worker that was not told how to get a token for it."""


class ProtectedResourceEndpoint:
    """Answers with the document."""

    def __init__(self, document: ProtectedResource) -> None:
        self._body = document.encode()

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request."""
        await exchange.respond_bytes(200, self._body, b"application/json", [(b"cache-control", b"max-age=300")])
