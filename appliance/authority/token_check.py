"""The gateway's check of access tokens: the validator of `security` in the shape that the gateway asks for."""

from appliance.authority.addresses import issuer_of, local_address, resource_of
from appliance.authority.credentials import find_tls_identity
from appliance.config import Configuration
from appliance.gateway.identity import Principal, TokenIssuerUnavailable, TokenRefused
from security.errors import KeysUnavailable, TokenRejected
from security.oauth.authority import KEY_SET_PATH
from security.oauth.https_source import HttpsJwksSource
from security.oauth.key_ring import KeyRing
from security.oauth.resource import AccessTokenValidator


class AuthorityTokenCheck:
    """Satisfies `appliance.gateway.identity.TokenCheck`."""

    def __init__(self, keys: KeyRing, validator: AccessTokenValidator) -> None:
        self._keys = keys
        self._validator = validator

    async def prepare(self) -> None:
        """Fetch the issuer's keys, so that the first request need not wait. Try again later when it fails.

        Raises: TokenIssuerUnavailable.
        """
        try:
            await self._keys.load()
        except KeysUnavailable as error:
            raise TokenIssuerUnavailable(str(error)) from error

    async def __call__(self, token: str) -> Principal:
        """Validate in full.

        Raises: TokenRefused, TokenIssuerUnavailable.
        """
        try:
            accepted = await self._validator.validate(token)
        except TokenRejected as error:
            raise TokenRefused(str(error)) from error
        except KeysUnavailable as error:
            raise TokenIssuerUnavailable(str(error)) from error
        return Principal(
            client_id=accepted.client_id,
            subject=accepted.subject,
            tenant=accepted.tenant,
            role=accepted.role.value,  # Plain text: what goes into records takes no enumerations.
            scopes=frozenset(scope.value for scope in accepted.scopes),
            issuer=accepted.issuer,
            key_id=accepted.kid,
            token_id=accepted.jti,
            expires_at=accepted.expires_at,
        )


def build_token_check(configuration: Configuration) -> AuthorityTokenCheck:
    """The check of a gateway worker: keys from our own authority, over TLS to the address where it listens here.

    The certificate is checked for the issuer's name, whatever address is connected to. Nothing is fetched yet.

    Raises: StartRefused if issuer or resource are not known from the configuration.
    """
    issuer = issuer_of(configuration)
    authority = configuration.authority
    # Without an override of the port we cannot know a better one; a listener on port 0 needs `authority.issuer` anyway.
    connect_to = (local_address(authority.host), authority.port) if authority.port else None
    source = HttpsJwksSource(
        issuer + KEY_SET_PATH,
        find_tls_identity(configuration).ca_certificate,
        connect_to=connect_to,
        minimum_version=configuration.tls.minimum_version,
    )
    keys = KeyRing(source)
    return AuthorityTokenCheck(keys, AccessTokenValidator(keys, issuer=issuer, audience=resource_of(configuration)))
