"""The sections `[[issuers]]` and `[upstream]`: who else is believed about tokens and about people, and what their words are
worth here.
"""

from typing import Annotated, Literal

import msgspec

RoleName = Literal["user", "operator", "steward", "auditor", "admin"]
ScopeName = Literal[
    "inference", "models.read", "audit.read", "audit.log", "audit.open", "audit.govern", "metrics.read", "engine.control",
    "tokens.introspect", "identity.read", "identity.manage",
]  # fmt: skip
"""`scopes.GRANTED_SCOPES`."""
SocketAddress = Annotated[str, msgspec.Meta(pattern=r"^(\d{1,3}(\.\d{1,3}){3}|\[[0-9a-fA-F:]+\]):\d{1,5}$")]
HttpsUrl = Annotated[str, msgspec.Meta(pattern=r"^https://[^\s?#@]+$", max_length=512)]
ClaimName = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
TenantName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
TenantClaim = Annotated[
    ClaimName | None,
    msgspec.Meta(
        description="Claim that tells the tenant, text or a list of it; a dot leads into an object. By default where roles and "
        "groups are."
    ),
]
Tenants = Annotated[
    dict[str, TenantName],
    msgspec.Meta(description="Which tenant here is meant by what that claim says; others none."),
]
Roles = Annotated[
    dict[str, RoleName], msgspec.Meta(description="What its roles and groups are worth here; others nothing.")
]
DefaultRole = Annotated[
    RoleName | None,
    msgspec.Meta(description="The role of who has none that is mapped; without it they are refused."),
]
DEFAULT_TENANT = "default"


class IssuerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An issuer elsewhere whose access tokens the gateway accepts too."""

    name: Annotated[
        str,
        msgspec.Meta(
            pattern=r"^[a-z0-9-]{1,32}$",
            description="In front of its clients and people, so that they are nobody here.",
        ),
    ]
    issuer: Annotated[
        str, msgspec.Meta(min_length=1, max_length=512, description="What `iss` must be, compared as text.")
    ]
    audience: Annotated[str, msgspec.Meta(min_length=1, max_length=512, description="What `aud` must be or hold.")]
    profile: Annotated[
        Literal["rfc9068", "entra", "adfs", "okta", "keycloak"],
        msgspec.Meta(description="How its access tokens look."),
    ] = "rfc9068"
    tenant: Annotated[
        TenantName | None,
        msgspec.Meta(
            description="The tenant of all who come by it; with `tenants`, of who has none that is mapped: without it they "
            "are refused."
        ),
    ] = None
    tenant_claim: TenantClaim = None
    tenants: Tenants = msgspec.field(default_factory=dict)
    roles: Roles = msgspec.field(default_factory=dict)
    default_role: DefaultRole = None
    scopes: Annotated[
        dict[str, ScopeName], msgspec.Meta(description="What its scopes are worth here; others nothing.")
    ] = msgspec.field(default_factory=dict)
    jwks_url: Annotated[str | None, msgspec.Meta(description="Where its keys are, https; needs `jwks_address`.")] = None
    jwks_address: Annotated[
        SocketAddress | None,
        msgspec.Meta(description="IP address and port of `jwks_url`: nothing is looked up in DNS."),
    ] = None
    ca_certificate: Annotated[
        str | None,
        msgspec.Meta(
            description="PEM file of the authority that signed the certificate of `jwks_url`.", extra={"path": True}
        ),
    ] = None
    jwks_file: Annotated[
        str | None,
        msgspec.Meta(
            description="Its keys in a file, a JWS over a JWK Set, where it cannot be reached; needs `jwks_signer_file`."
        ),
    ] = None
    jwks_signer_file: Annotated[
        str | None, msgspec.Meta(description="PEM file of the public key that signs `jwks_file`.")
    ] = None

    def __post_init__(self) -> None:
        """Everybody has a tenant, and keys come from one place, which is named in full."""
        if self.tenant is None and not self.tenants:
            raise ValueError("expected tenant, or tenants by which they are told apart")
        _verify_told_apart(self.tenant_claim, self.tenants)
        by_address = (self.jwks_url, self.jwks_address, self.ca_certificate)
        by_file = (self.jwks_file, self.jwks_signer_file)
        given = (by_address, by_file) if self.jwks_file is None else (by_file, by_address)
        if None in given[0] or any(part is not None for part in given[1]):
            raise ValueError(
                "expected jwks_url, jwks_address and ca_certificate, or else jwks_file and jwks_signer_file"
            )


class UpstreamSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The OpenID provider by which people sign in. With it there are no local people; clients stay."""

    name: Annotated[
        str,
        msgspec.Meta(pattern=r"^[a-z0-9-]{1,32}$", description="In front of its people, so that they are nobody else."),
    ]
    issuer: Annotated[
        str, msgspec.Meta(min_length=1, max_length=512, description="What `iss` of ID tokens must be, as text.")
    ]
    client_id: Annotated[
        str, msgspec.Meta(min_length=1, max_length=256, description="Under which the provider knows this authority.")
    ]
    client_secret_file: Annotated[
        str | None,
        msgspec.Meta(description="File with the secret, mode 0600; without it the provider knows a public client."),
    ] = None
    authorization_endpoint: Annotated[HttpsUrl, msgspec.Meta(description="Where people's browsers are sent.")]
    token_endpoint: Annotated[HttpsUrl, msgspec.Meta(description="Where codes are exchanged.")]
    jwks_url: Annotated[HttpsUrl, msgspec.Meta(description="Where the keys are that sign ID tokens.")]
    address: Annotated[
        SocketAddress,
        msgspec.Meta(description="IP address and port of the last two: nothing is looked up in DNS."),
    ]
    ca_certificate: Annotated[
        str,
        msgspec.Meta(description="PEM file of the authority that signed their certificate.", extra={"path": True}),
    ]
    scope: Annotated[
        str, msgspec.Meta(pattern=r"^openid( [!#-\[\]-~]+)*$", max_length=256, description="What is asked for.")
    ] = "openid profile"
    tenant: Annotated[
        TenantName | None,
        msgspec.Meta(
            description="The tenant of all who come by it, `default` if unset; with `tenants`, of who has none that is mapped: "
            "without it they are refused."
        ),
    ] = None
    tenant_claim: TenantClaim = None
    tenants: Tenants = msgspec.field(default_factory=dict)
    roles: Roles = msgspec.field(default_factory=dict)
    default_role: DefaultRole = None

    def __post_init__(self) -> None:
        """What tells tenants apart tells something."""
        _verify_told_apart(self.tenant_claim, self.tenants)

    @property
    def fallback_tenant(self) -> str | None:
        """The tenant of who has none that is mapped; None: refused."""
        return DEFAULT_TENANT if self.tenant is None and not self.tenants else self.tenant


def _verify_told_apart(tenant_claim: str | None, tenants: dict[str, str]) -> None:
    if tenant_claim is not None and not tenants:
        raise ValueError("tenant_claim: expected tenants, by what it says")
