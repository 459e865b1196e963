"""Issuers elsewhere, from their section of the configuration to a validator of their tokens."""

from pathlib import Path

from security.errors import KeysUnavailable
from security.issuer_settings import IssuerSettings
from security.oauth.file_source import SignedFileJwksSource
from security.oauth.https_source import HttpsJwksSource
from security.oauth.key_ring import JwksSource, KeyRing
from security.oauth.profiles import SHAPES, ForeignProfile, Mapping
from security.oauth.resource import AccessTokenValidator
from security.scopes import Role, Scope
from security.tls import MinimumVersion


class ForeignIssuer:
    """An issuer elsewhere: how its tokens are checked, and with which keys."""

    def __init__(self, settings: IssuerSettings, minimum_version: MinimumVersion) -> None:
        """Nothing is fetched yet."""
        profile = ForeignProfile(shape=SHAPES[settings.profile], mapping=build_mapping(settings))
        self._source = _build_source(settings, minimum_version)
        self._keys = _build_ring(self._source)
        self.validator = AccessTokenValidator(self._keys, profile=profile, skew_s=profile.skew_s)

    async def renew_keys(self, data: bytes) -> None:
        """The file of its keys is another: believe it at once, if it is to be believed; else those at hand go on.

        Raises: KeysUnavailable.
        """
        if isinstance(self._source, SignedFileJwksSource):
            self._source.replace(data)
            try:
                await self._keys.load()
            except KeysUnavailable:
                self._source.restore()
                raise


def build_mapping(settings: IssuerSettings) -> Mapping:
    """What the issuer's words are worth here."""
    return Mapping(
        name=settings.name,
        issuer=settings.issuer,
        audience=settings.audience,
        tenant=settings.tenant,
        tenant_claim=settings.tenant_claim,
        tenants=settings.tenants,
        roles={theirs: Role(ours) for theirs, ours in settings.roles.items()},
        default_role=None if settings.default_role is None else Role(settings.default_role),
        scopes={theirs: Scope(ours) for theirs, ours in settings.scopes.items()},
    )


def address_of(settings: IssuerSettings) -> tuple[str, int] | None:
    """Where its keys are fetched; None where they lie in a file."""
    if settings.jwks_address is None:
        return None
    return split_address(settings.jwks_address)


def split_address(text: str) -> tuple[str, int]:
    """Host and port of a `SocketAddress`."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def _build_ring(source: JwksSource) -> KeyRing:
    return KeyRing(source, is_over=source.is_over) if isinstance(source, SignedFileJwksSource) else KeyRing(source)


def _build_source(settings: IssuerSettings, minimum_version: MinimumVersion) -> JwksSource:
    if settings.jwks_file is not None and settings.jwks_signer_file is not None:
        return SignedFileJwksSource(Path(settings.jwks_file), Path(settings.jwks_signer_file))
    assert settings.jwks_url is not None
    assert settings.ca_certificate is not None
    return HttpsJwksSource(
        settings.jwks_url,
        Path(settings.ca_certificate),
        connect_to=address_of(settings),
        minimum_version=minimum_version,
    )
