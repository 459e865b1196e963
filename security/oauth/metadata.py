"""What an authority says of itself (RFC 8414 section 2): only what is implemented, every endpoint below the issuer."""

from typing import Any

from authlib.oauth2.rfc8414 import AuthorizationServerMetadata

from security.errors import SecurityMisconfigured
from security.oauth.algorithms import FOREIGN_ALGORITHMS
from security.oauth.grant_types import GRANT_TYPES
from security.oauth.registered_client import AUTH_METHODS
from security.scopes import GRANTED_SCOPES

METADATA_PATH = "/.well-known/oauth-authorization-server"
TOKEN_PATH = "/token"  # noqa: S105 - a path
KEY_SET_PATH = "/jwks.json"
REVOCATION_PATH = "/revoke"
INTROSPECTION_PATH = "/introspect"
DEVICE_AUTHORIZATION_PATH = "/device_authorization"
DEVICE_PATH = "/device"
AUTHORIZATION_PATH = "/authorize"


def build_metadata(issuer: str, *, offers_certificates: bool) -> dict[str, Any]:
    """The metadata document of an issuer.

    Args:
        offers_certificates: clients are asked for certificates.
    Raises: SecurityMisconfigured if authlib finds that the RFC does not allow it.
    """
    methods = [name for name in AUTH_METHODS if "tls" not in name or offers_certificates]
    confidential = [name for name in methods if name != "none"]
    document: dict[str, Any] = {
        "issuer": issuer,
        "authorization_endpoint": issuer + AUTHORIZATION_PATH,
        "token_endpoint": issuer + TOKEN_PATH,
        "revocation_endpoint": issuer + REVOCATION_PATH,
        "introspection_endpoint": issuer + INTROSPECTION_PATH,
        "device_authorization_endpoint": issuer + DEVICE_AUTHORIZATION_PATH,
        "jwks_uri": issuer + KEY_SET_PATH,
        "scopes_supported": list(GRANTED_SCOPES),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": list(GRANT_TYPES),
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": methods,
        "token_endpoint_auth_signing_alg_values_supported": list(FOREIGN_ALGORITHMS),
        "revocation_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_signing_alg_values_supported": list(FOREIGN_ALGORITHMS),
        "introspection_endpoint_auth_methods_supported": confidential,
        "introspection_endpoint_auth_signing_alg_values_supported": list(FOREIGN_ALGORITHMS),
        "dpop_signing_alg_values_supported": list(FOREIGN_ALGORITHMS),
        "authorization_response_iss_parameter_supported": True,
    }
    if offers_certificates:
        document["tls_client_certificate_bound_access_tokens"] = True
    metadata = AuthorizationServerMetadata(document)
    try:
        metadata.validate()
    except ValueError as error:
        raise SecurityMisconfigured(f"the authority's metadata: {error}") from error
    return dict(metadata)
