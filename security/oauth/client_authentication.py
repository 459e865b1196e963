"""Which client a request is from: every method of RFC 6749, RFC 7523 and RFC 8705, in authlib's registry of methods.

A client authenticates by the one method of its registration (a secret, by either of its two ways); what comes by another fails,
always with the same words (`grant_server`). An unknown client costs the same work as a wrong secret. authlib's own methods are
replaced, all of them: they tell unknown clients from wrong secrets, log client ids, and let an exception escape from a Basic
header that is not UTF-8. What a request says is found once, in `token_request`, and each method takes only its own.
"""

import time
from collections.abc import Callable, Sequence

from authlib.oauth2.rfc6749 import AuthorizationServer
from cryptography import x509

from security.clients import is_secret_of
from security.oauth.authority_request import AuthorityRequest
from security.oauth.client_assertion import ClientAssertion
from security.oauth.client_certificates import is_issued, is_registered, names_subject
from security.oauth.registered_client import RegisteredClient
from security.policy.replay import ReplayMemory

QueryClient = Callable[[str], RegisteredClient | None]
_NO_HASH = bytes(32)


class ClientAuthentication:
    """Checks clients' credentials for one authority."""

    def __init__(
        self,
        credentials_key: bytes,
        audiences: frozenset[str],
        *,
        used: ReplayMemory,
        client_authorities: Sequence[x509.Certificate] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            audiences: what an assertion may be for: the issuer and the addresses of its endpoints.
            used: the assertions that were used.
            client_authorities: who signs the certificates of clients with `tls_client_auth`.
        """
        self._credentials_key = credentials_key
        self._authorities = client_authorities
        self._clock = clock
        self._assertion = ClientAssertion(audiences, used=used, clock=clock)

    def trust(self, client_authorities: Sequence[x509.Certificate]) -> None:
        """From now on these sign the certificates of clients, and no others."""
        self._authorities = client_authorities

    def register(self, server: AuthorizationServer) -> None:
        """Make these the methods of a server."""
        for method in ("client_secret_basic", "client_secret_post"):
            server.register_client_auth_method(method, _only(method, self._by_secret))
        server.register_client_auth_method("private_key_jwt", _only("private_key_jwt", self._assertion))
        server.register_client_auth_method("tls_client_auth", _only("named", self._by_issued_certificate))
        server.register_client_auth_method("self_signed_tls_client_auth", _only("named", self._by_own_certificate))
        server.register_client_auth_method("none", _only("named", _find_named))

    def _by_secret(self, query_client: QueryClient, request: AuthorityRequest) -> RegisteredClient | None:
        credentials = request.parsed.credentials
        assert credentials is not None
        client = query_client(credentials.client_id)
        stored = None if client is None else client.definition.secret_hash
        if client is not None and client.definition.auth_method != "client_secret":
            stored = None
        holds = is_secret_of(self._credentials_key, credentials.client_id, stored or _NO_HASH, credentials.secret)
        return client if holds and stored is not None else None

    def _by_issued_certificate(self, query_client: QueryClient, request: AuthorityRequest) -> RegisteredClient | None:
        client, certificate = _find_named(query_client, request), request.parsed.certificate
        subject = None if client is None else client.definition.tls_subject
        if certificate is None or subject is None or not is_issued(certificate, self._authorities, self._clock()):
            return None
        return client if names_subject(certificate, subject) else None

    def _by_own_certificate(self, query_client: QueryClient, request: AuthorityRequest) -> RegisteredClient | None:
        client, certificate = _find_named(query_client, request), request.parsed.certificate
        if client is None or certificate is None:
            return None
        return client if is_registered(certificate, client.definition.jwks) else None


Method = Callable[[QueryClient, AuthorityRequest], RegisteredClient | None]


def _only(way: str, method: Method) -> Method:
    """authlib tries one method after the other; each looks only at a request that chose it."""

    def authenticate(query_client: QueryClient, request: AuthorityRequest) -> RegisteredClient | None:
        credentials = request.parsed.credentials
        return method(query_client, request) if credentials is not None and credentials.method == way else None

    return authenticate


def _find_named(query_client: QueryClient, request: AuthorityRequest) -> RegisteredClient | None:
    """The client that only names itself: good for a public one, and for one whose certificate says the rest."""
    assert request.parsed.credentials is not None
    return query_client(request.parsed.credentials.client_id)
