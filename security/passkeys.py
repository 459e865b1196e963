"""Passkeys (WebAuthn Level 2) as a second factor beside a password, on python-fido2.

fido2 reads what the browser sends and verifies the ceremonies of sections 7.1 and 7.2: type, challenge, RP id, presence,
signature. Ours: the origin is the issuer's and not any below its domain, a page inside somebody else's frame is refused, a key
must be of an algorithm that we offered (fido2 takes whatever it can read), a counter that goes back means a copy, and whatever
is malformed is one error. What an authenticator says of itself is not asked for: which models are allowed is not ours to
decide.

RP id: the host name of the issuer. Browsers take no addresses, so an authority known by its number offers none.
"""

import ipaddress
import json
import struct
from typing import Any
from urllib.parse import urlsplit

from fido2.server import Fido2Server
from fido2.webauthn import (
    AttestedCredentialData,
    AuthenticationResponse,
    PublicKeyCredentialRpEntity,
    PublicKeyCredentialUserEntity,
    RegistrationResponse,
    UserVerificationRequirement,
)

from security.errors import ClientRejected, MalformedDocument
from security.json_object import parse_json_object
from security.users import Passkey, User

ALGORITHMS = (-7, -8, -257)
"""COSE: ES256, EdDSA, RS256, which every authenticator has one of."""
MAX_RESPONSE_CHARS = 12 << 10
MAX_CREDENTIAL_BYTES = 2048
TIMEOUT_MS = 300_000
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError, OverflowError, struct.error)


class PasskeyRejected(ClientRejected):
    """A response that is no answer to what was asked."""


class Ceremony:
    """What a browser was asked, and must answer."""

    __slots__ = ("options", "state")

    def __init__(self, options: str, state: Any) -> None:
        self.options = options
        """JSON for the page's script."""
        self.state = state


class PasskeyServer:
    """Passkeys of one issuer."""

    def __init__(self, issuer: str) -> None:
        """The caller MUST have seen that `find_rp_id` gives one."""
        rp_id = find_rp_id(issuer)
        assert rp_id is not None
        self._server = Fido2Server(
            PublicKeyCredentialRpEntity(id=rp_id, name="Casemate"), verify_origin=lambda origin: origin == issuer
        )
        self._server.allowed_algorithms = [one for one in self._server.allowed_algorithms if one.alg in ALGORITHMS]
        self._server.timeout = TIMEOUT_MS  # type: ignore[assignment]  # fido2 says nothing of its type

    def begin_registration(self, user: User) -> Ceremony:
        """Ask for a new passkey (section 5.4)."""
        entity = PublicKeyCredentialUserEntity(id=user.user_id.encode(), name=user.login, display_name=user.name)
        options, state = self._server.register_begin(
            entity, _credentials_of(user), user_verification=UserVerificationRequirement.PREFERRED
        )
        return Ceremony(json.dumps(dict(options)["publicKey"]), state)

    def finish_registration(self, ceremony: Ceremony, response: str) -> tuple[bytes, bytes, int]:
        """The credential to keep (section 7.1), its id, and its counter, which the caller MUST keep for the first sign-in.

        Raises: PasskeyRejected.
        """
        try:
            registration = RegistrationResponse.from_dict(_parse(response))
            data = self._server.register_complete(ceremony.state, registration)
            is_framed = registration.response.client_data.cross_origin
        except _MALFORMED:
            raise PasskeyRejected("The key's answer does not hold.") from None
        credential = data.credential_data
        # (16), and (1) of section 13.4.9.
        if credential is None or credential.public_key.get(3) not in ALGORITHMS or is_framed:
            raise PasskeyRejected("The key's answer does not hold.")
        if len(credential) > MAX_CREDENTIAL_BYTES:
            raise PasskeyRejected("The key's answer is too large.")
        return bytes(credential), credential.credential_id, data.counter

    def begin_sign_in(self, user: User) -> Ceremony:
        """Ask for one of a person's passkeys (section 5.5)."""
        options, state = self._server.authenticate_begin(
            _credentials_of(user), user_verification=UserVerificationRequirement.PREFERRED
        )
        return Ceremony(json.dumps(dict(options)["publicKey"]), state)

    def finish_sign_in(self, ceremony: Ceremony, user: User, response: str) -> tuple[bytes, int]:
        """The id of the passkey that answered, and its counter (section 7.2); 0 where it has none.

        The caller MUST refuse a counter that is not above the last (step 22), unless both are 0.
        Raises: PasskeyRejected.
        """
        try:
            answer = AuthenticationResponse.from_dict(_parse(response))
            credential = self._server.authenticate_complete(ceremony.state, _credentials_of(user), answer)
            is_framed, counter = answer.response.client_data.cross_origin, answer.response.authenticator_data.counter
        except _MALFORMED:
            raise PasskeyRejected("The key's answer does not hold.") from None
        if is_framed:
            raise PasskeyRejected("The key's answer does not hold.")
        return credential.credential_id, counter


def find_rp_id(issuer: str) -> str | None:
    """The host name that passkeys are for; None for an address, which browsers do not take."""
    host = urlsplit(issuer).hostname or ""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host or None
    return None


def _credentials_of(user: User) -> list[AttestedCredentialData]:
    return [_read(passkey) for passkey in user.passkeys]


def _read(passkey: Passkey) -> AttestedCredentialData:
    return AttestedCredentialData(passkey.credential)


def _parse(response: str) -> dict[str, Any]:
    if len(response) > MAX_RESPONSE_CHARS:
        raise ValueError
    try:
        return parse_json_object(response.encode())
    except (MalformedDocument, UnicodeError):
        raise ValueError from None
