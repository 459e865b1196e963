"""The grants that there are, and who may use which: an application never acts for itself, a service never signs people in."""

from security.clients import ClientKind

CODE_GRANT = "authorization_code"
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
EXCHANGE_GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name
JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"

GRANTS_OF: dict[ClientKind, tuple[str, ...]] = {
    "service": ("client_credentials", EXCHANGE_GRANT),
    "application": (CODE_GRANT, DEVICE_GRANT, "refresh_token"),
}
GRANT_TYPES = tuple(grant for grants in GRANTS_OF.values() for grant in grants)
