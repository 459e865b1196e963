"""The token signing key is replaced when it is old: published at once, signing ten minutes later, the old one gone when nothing
needs it (`security.oauth.signing_keys`). Every step is told to policy, which checks tokens without a network, and is in the
log.
"""

import structlog

from appliance.authority.directory import Directory
from audit.changes import change_event
from audit.entry import encode_event
from security.errors import KeyUnusable
from security.oauth.signing_keys import SigningAlgorithm, SigningKeys

_DAY_S = 86_400

log = structlog.get_logger(__name__)


class KeyRotation:
    """Looks at the keys once in a while."""

    def __init__(
        self, keys: SigningKeys, directory: Directory, *, lifetime_days: int, algorithm: SigningAlgorithm
    ) -> None:
        """
        Args:
            lifetime_days: after which a key is replaced; 0 never.
            algorithm: of new keys; a key of another one is replaced as well.
        """
        self._keys = keys
        self._directory = directory
        self._lifetime_s = lifetime_days * _DAY_S
        self._algorithm = algorithm

    def turn(self) -> list[bytes]:
        """Do what is due. Returns: its records. What cannot be done now is reported, and tried again."""
        records = []
        try:
            before = self._keys.all
            if self._keys.retire():
                gone = [key for key in before if key not in self._keys.all]
                records += [self._record(key.kid, "removed") for key in gone]
            if self._keys.is_due(self._lifetime_s, self._algorithm):
                records.append(self._record(self._keys.rotate(self._algorithm).kid, "published"))
        except KeyUnusable as error:
            log.error("signing_key_not_rotated", reason=str(error))
        if records:
            self._directory.publish_keys()
            log.info("signing_key_rotated", keys=[key.kid for key in self._keys.all])
        return records

    def _record(self, kid: str, stage: str) -> bytes:
        current = self._keys.current.kid
        return encode_event(
            change_event(
                "key_rotated",
                entity_type="key",
                entity_uid="token signing key",
                actor="authority",
                before={"key_id": current},
                after={"key_id": kid, "stage": stage},
            )
        )
