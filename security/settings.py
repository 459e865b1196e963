"""The sections `[authority]`, `[policy]`, `[tls]`, `[confinement]` and `[models]`. Safe defaults; 0 means no limit where said."""

from typing import Annotated, Literal

import msgspec

from security.sandbox.users import DEFAULT_FIRST_UID, FIRST_FREE_ID, LAST_FREE_ID, NUM_IDS

Host = Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
HttpsOrigin = Annotated[str, msgspec.Meta(pattern=r"^https://[^\s/?#@]+$", max_length=512)]
"""Scheme, host and port without a trailing slash: the well-known paths hang below it."""


BannerText = Annotated[str, msgspec.Meta(min_length=1, max_length=4000)]
DatabaseUrl = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]


class AuthoritySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The embedded OAuth authorization server."""

    host: Annotated[Host, msgspec.Meta(description="Address the authority listens on.")] = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535, description="TCP port the authority listens on.")] = 8444
    issuer: Annotated[
        HttpsOrigin | None,
        msgspec.Meta(
            description="Issuer identifier, the URL that clients reach the authority by; by default from host and port."
        ),
    ] = None
    resource: Annotated[
        HttpsOrigin | None,
        msgspec.Meta(
            description="URL that clients reach the gateway by: the audience of tokens; by default from its host and port."
        ),
    ] = None
    token_lifetime_s: Annotated[
        int, msgspec.Meta(ge=30, le=3600, description="Seconds for which an access token is valid.")
    ] = 600
    signing_algorithm: Annotated[
        Literal["ES256", "Ed25519", "EdDSA", "PS256", "RS256"],
        msgspec.Meta(
            description="Algorithm of a newly made token signing key. Every JOSE library verifies ES256; PS256 and RS256 are "
            "for programs that take RSA only, EdDSA is Ed25519 for those that do not know this name (RFC 9864)."
        ),
    ] = "ES256"
    signing_key_lifetime_days: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            le=3650,
            description="Days after which the token signing key is replaced, overlapping with the next; 0 means never. "
            "A key of another algorithm than `signing_algorithm` is replaced at once.",
        ),
    ] = 90
    max_failures_per_minute: Annotated[
        int,
        msgspec.Meta(
            ge=1,
            le=10_000,
            description="Token requests per minute of a client at an address that may fail before it has shown who it is; "
            "an address, and a client that has shown it or has no secret, may fail ten times as often.",
        ),
    ] = 10
    max_connections: Annotated[
        int,
        msgspec.Meta(
            ge=1, le=65_536, description="Connections open at once, handshakes included; more are closed at once."
        ),
    ] = 4096
    max_connections_per_source: Annotated[
        int,
        msgspec.Meta(
            ge=1,
            le=65_536,
            description="Those of one address, or one IPv6 network of 64 bits; more are closed at once.",
        ),
    ] = 1024
    refresh_idle_s: Annotated[
        int,
        msgspec.Meta(
            ge=60, le=30 * 86_400, description="Seconds after which a refresh token that was not used is void."
        ),
    ] = 8 * 3600
    session_lifetime_s: Annotated[
        int,
        msgspec.Meta(
            ge=60,
            le=30 * 86_400,
            description="Seconds after a sign-in until the person must sign in again, whatever is used.",
        ),
    ] = 12 * 3600
    page_idle_s: Annotated[
        int,
        msgspec.Meta(
            ge=30,
            le=86_400,
            description="Seconds without a click after which the authority's own pages ask to sign in again.",
        ),
    ] = 900
    max_sign_in_failures: Annotated[
        int,
        msgspec.Meta(
            ge=1, le=100, description="Failed sign-ins in a row after which an account is locked for a while."
        ),
    ] = 5
    lockout_s: Annotated[
        int,
        msgspec.Meta(ge=1, le=86_400, description="Seconds for which an account is locked after too many failures."),
    ] = 900
    inactive_after_days: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            le=3650,
            description="Days without a sign-in after which an account must be enabled again; 0 means never.",
        ),
    ] = 90
    banner: Annotated[
        BannerText | None,
        msgspec.Meta(description="Notice that is shown before a sign-in, to be accepted by signing in."),
    ] = None
    dpop_nonce_lifetime_s: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            le=3600,
            description="Seconds for which a DPoP nonce of the authority, the gateway and the admin API is good; "
            "0 asks for no nonces.",
        ),
    ] = 0
    audit_timeout_s: Annotated[
        float,
        msgspec.Meta(
            gt=0, le=60, description="Seconds to wait until a token's record is durable; without it no token is given."
        ),
    ] = 5.0


class PolicySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where definitions lie, and the limits of each client that has none of its own. 0 means no limit."""

    database_url: Annotated[
        DatabaseUrl | None,
        msgspec.Meta(
            extra={"secret": True},
            description="Database of clients, people, keys and limits, as `postgresql://…`; "
            "by default a SQLite file in the state folder. Of appliances that share one, each change is in one log only.",
        ),
    ] = None
    two_person_grants: Annotated[
        bool,
        msgspec.Meta(
            description="A privileged role takes effect only when a second person has agreed. "
            "Production needs it, or the waiver of that name."
        ),
    ] = False

    max_concurrent_requests_per_client: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            le=1_000_000,
            description="Requests of one client that may run at once, each prompt of a list being one; 0 means no limit.",
        ),
    ] = 64
    requests_per_minute_per_client: Annotated[
        int,
        msgspec.Meta(ge=0, le=100_000_000, description="Requests one client may start per minute; 0 means no limit."),
    ] = 0
    tokens_per_minute_per_client: Annotated[
        int,
        msgspec.Meta(
            ge=0, le=10**12, description="Prompt and output tokens of one client per minute; 0 means no limit."
        ),
    ] = 0
    tokens_per_day_per_client: Annotated[
        int,
        msgspec.Meta(
            ge=0, le=10**12, description="Prompt and output tokens of one client per day in UTC; 0 means no limit."
        ),
    ] = 0
    tokens_in_flight_per_client: Annotated[
        int,
        msgspec.Meta(
            ge=0, le=10**12, description="Tokens that open requests of one client may hold; 0 means no limit."
        ),
    ] = 0
    quota_block_tokens: Annotated[
        int,
        msgspec.Meta(
            ge=1, le=1_000_000, description="Output tokens that are reserved at a time while an answer grows."
        ),
    ] = 256
    definitions_max_age_s: Annotated[
        float,
        msgspec.Meta(
            gt=0, le=60, description="Seconds after which a disabled client or a changed model list takes effect."
        ),
    ] = 0.5


class AdministrationSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The admin API, on a listener of its own."""

    enabled: Annotated[
        bool, msgspec.Meta(description="Serve the admin API. Off, the commands are the only way to change definitions.")
    ] = False
    host: Annotated[Host, msgspec.Meta(description="Address the admin API listens on.")] = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535, description="TCP port the admin API listens on.")] = 8445


class TlsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Certificates of gateway and authority. Without files of your own, an own certificate authority makes them."""

    certificate: Annotated[
        str | None,
        msgspec.Meta(
            description="PEM file with the server certificate and its chain; needs `key`.", extra={"path": True}
        ),
    ] = None
    key: Annotated[
        str | None,
        msgspec.Meta(description="PEM file with the certificate's private key, mode 0600.", extra={"path": True}),
    ] = None
    ca_certificate: Annotated[
        str | None,
        msgspec.Meta(
            description="PEM file of the authority that signed `certificate`, for our own connections and clients.",
            extra={"path": True},
        ),
    ] = None
    extra_names: Annotated[
        tuple[Host, ...],
        msgspec.Meta(max_length=64, description="More DNS names and addresses for the automatic certificate."),
    ] = ()
    minimum_version: Annotated[
        Literal["1.2", "1.3"], msgspec.Meta(description="Oldest TLS version that is accepted.")
    ] = "1.3"
    client_certificates: Annotated[
        bool,
        msgspec.Meta(
            description="Ask clients for certificates, so that they can authenticate by them and have tokens bound to them."
        ),
    ] = False
    client_ca_certificate: Annotated[
        str | None,
        msgspec.Meta(
            description="PEM file of the authorities, intermediate ones included, that sign clients' certificates.",
            extra={"path": True},
        ),
    ] = None


class ConfinementSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The sandbox of each process: its own files, its own network, its own system calls."""

    enabled: Annotated[
        bool,
        msgspec.Meta(
            description="Confine every process to its role, as far as this system allows. Off only to find a fault: "
            "production then needs the waiver `confinement`."
        ),
    ] = True
    first_uid: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            le=LAST_FREE_ID - NUM_IDS + 1,
            description="Where 32 user and group ids begin that nobody else has, from 60578 on: a supervisor that is root, "
            "or is lent users, runs each role as a user of its own from them. 0: all as one user, and production then needs the "
            "waiver `single_user`.",
        ),
    ] = DEFAULT_FIRST_UID

    def __post_init__(self) -> None:
        """Below the range the ids may be somebody's."""
        if 0 < self.first_uid < FIRST_FREE_ID:
            raise ValueError(f"expected first_uid of 0 or from {FIRST_FREE_ID} on, got {self.first_uid}")


class ModelsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model store below the state folder."""

    reverify_interval_s: Annotated[
        float,
        msgspec.Meta(
            gt=0,
            le=31_536_000,
            description="Seconds between two verifications of the files of every promoted model while it is served. "
            "The first comes after one interval: at the start the bytes are verified as they are loaded.",
        ),
    ] = 86_400.0
