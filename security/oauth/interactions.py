"""What waits for a person: authorization codes (RFC 6749 section 4.1) and device codes (RFC 8628). In memory, bounded, short-lived.

They do not outlive the process: who was signing in begins again. A code is spent by its first use, whatever comes of it;
used again it tells which tokens to void (RFC 6749 section 4.1.2).
"""

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

import msgspec

from security.oauth.failure_limit import normalize_source

CODE_LIFETIME_S = 60
USED_CODE_LIFETIME_S = 3600
DEVICE_LIFETIME_S = 600
DEVICE_INTERVAL_S = 5
SLOW_DOWN_S = 5
MAX_WAITING = 10_000
MAX_DEVICES_PER_SOURCE = 500
"""Of one address: an application that keeps no secret is anybody's to begin with."""
_USER_CODE_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
"""RFC 8628 section 6.1: no vowels, so that no words come up; 20^8 is 34 bits, guarded by the limit on failures."""
_USER_CODE_CHARS = 8


class AgreedGrant(msgspec.Struct, frozen=True, kw_only=True):
    """What an authorization code may be exchanged for."""

    client_id: str
    user_id: str
    redirect_uri: str
    redirect_uri_was_given: bool
    scope: str
    challenge: str
    auth_time: int
    key_thumbprint: str = ""
    """`dpop_jkt` of the request (RFC 9449 section 10)."""


class SpentCode(msgspec.Struct):
    """A code after its use, and the family of tokens that came of it."""

    grant: AgreedGrant
    expires_at: float
    family: str = ""


class DeviceGrant(msgspec.Struct, kw_only=True):
    """A device that waits for a person."""

    client_id: str
    scope: str
    user_code: str
    expires_at: float
    interval_s: int = DEVICE_INTERVAL_S
    next_poll_at: float = 0.0
    state: Literal["pending", "approved", "denied"] = "pending"
    source: str = ""
    user_id: str = ""
    auth_time: int = 0


class Interactions:
    """Owner of all codes."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._codes: OrderedDict[bytes, tuple[float, AgreedGrant]] = OrderedDict()
        self._spent: OrderedDict[bytes, tuple[float, SpentCode]] = OrderedDict()
        self._devices: OrderedDict[bytes, DeviceGrant] = OrderedDict()
        self._device_of: dict[str, bytes] = {}
        self._num_devices_of: dict[str, int] = {}

    def keep_code(self, code: str, grant: AgreedGrant) -> None:
        """An authorization code was made: keep what it is good for."""
        self._forget()
        self._codes[_hash(code)] = (self._clock() + CODE_LIFETIME_S, grant)

    def spend_code(self, code: str) -> SpentCode | None:
        """Spend a code; None if it is not known, or too old."""
        self._forget()
        digest = _hash(code)
        found = self._codes.pop(digest, None)
        if found is None or found[0] <= self._clock():  # One that was given back stands behind younger ones.
            return None
        spent = SpentCode(found[1], found[0])
        self._spent[digest] = (self._clock() + USED_CODE_LIFETIME_S, spent)
        return spent

    def give_back_code(self, code: str) -> None:
        """What it was spent for reached nobody: it is good as long as it was to be."""
        spent = self._spent.pop(_hash(code), None)
        if spent is not None:
            self._codes[_hash(code)] = (spent[1].expires_at, spent[1].grant)

    def look_at_code(self, code: str) -> AgreedGrant | None:
        """What a code would be good for, without spending it."""
        found = self._codes.get(_hash(code))
        return None if found is None or found[0] <= self._clock() else found[1]

    def find_spent(self, code: str) -> SpentCode | None:
        """A code that was used before."""
        found = self._spent.get(_hash(code))
        return None if found is None else found[1]

    def make_device_code(self) -> str:
        """A new device code; it is good for nothing yet."""
        return secrets.token_urlsafe(32)

    def make_user_code(self) -> str:
        """A code that no waiting device shows."""
        while True:
            letters = "".join(secrets.choice(_USER_CODE_LETTERS) for _ in range(_USER_CODE_CHARS))
            if letters not in self._device_of:
                return f"{letters[:4]}-{letters[4:]}"

    def add_device(self, code: str, user_code: str, client_id: str, scope: str, address: str = "") -> bool:
        """Let a device at this address wait for a person; False while too many wait, or too many there."""
        self._forget()
        source = normalize_source(address)
        num_there = self._num_devices_of.get(source, 0)
        if len(self._devices) >= MAX_WAITING or num_there >= MAX_DEVICES_PER_SOURCE:
            return False
        grant = DeviceGrant(
            client_id=client_id,
            scope=scope,
            user_code=user_code,
            expires_at=self._clock() + DEVICE_LIFETIME_S,
            source=source,
        )
        self._num_devices_of[source] = num_there + 1
        self._devices[_hash(code)] = grant
        self._device_of[normalize_user_code(user_code)] = _hash(code)
        return True

    def look_at_device(self, code: str) -> DeviceGrant | None:
        """The device of a code, without counting the question."""
        return self._devices.get(_hash(code))

    def poll_device(self, code: str, client_id: str) -> DeviceGrant | Literal["slow_down", "expired"] | None:
        """What has become of a device code; None if it is not known, or another client's."""
        grant, now = self._devices.get(_hash(code)), self._clock()
        if grant is None or grant.client_id != client_id:
            return None
        if grant.expires_at <= now:
            return "expired"
        if now < grant.next_poll_at:
            grant.interval_s += SLOW_DOWN_S
            grant.next_poll_at = now + grant.interval_s
            return "slow_down"
        grant.next_poll_at = now + grant.interval_s
        return grant

    def spend_device(self, code: str) -> None:
        """Its tokens were issued, or it was denied and told so."""
        if _hash(code) in self._devices:
            self._remove_device(_hash(code))

    def give_back_device(self, code: str, grant: DeviceGrant) -> None:
        """What was issued to it reached nobody: it may ask again, and at once."""
        grant.next_poll_at = 0.0
        self._devices[_hash(code)] = grant
        self._device_of[normalize_user_code(grant.user_code)] = _hash(code)
        self._num_devices_of[grant.source] = self._num_devices_of.get(grant.source, 0) + 1

    def find_device(self, user_code: str) -> DeviceGrant | None:
        """The device that shows this code, if it waits for a decision."""
        grant = self._devices.get(self._device_of.get(normalize_user_code(user_code), b""))
        if grant is None or grant.expires_at <= self._clock() or grant.state != "pending":
            return None
        return grant

    def _forget(self) -> None:
        now = self._clock()
        for table in (self._codes, self._spent):
            while table and (len(table) > MAX_WAITING or next(iter(table.values()))[0] <= now):
                table.popitem(last=False)
        while self._devices and next(iter(self._devices.values())).expires_at + DEVICE_LIFETIME_S <= now:
            self._remove_device(next(iter(self._devices)))

    def _remove_device(self, digest: bytes) -> None:
        grant = self._devices.pop(digest)
        self._device_of.pop(normalize_user_code(grant.user_code), None)
        left = self._num_devices_of[grant.source] - 1
        if left:
            self._num_devices_of[grant.source] = left
        else:
            del self._num_devices_of[grant.source]


def normalize_user_code(text: str) -> str:
    """As people type it: in any case, with or without the hyphen (RFC 8628 section 6.1)."""
    return "".join(one for one in text.upper() if one.isalnum())[:32]


def _hash(code: str) -> bytes:
    return hashlib.sha256(code.encode("utf-8", "replace")).digest()
