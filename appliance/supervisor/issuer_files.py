"""Files of other issuers' keys that change while everything runs: noticed here, sent to the gateways, which judge them.

A gateway cannot read a file that has taken another's place: its sandbox knows the files that were there at its start. So a key
that was withdrawn would be believed until the next restart, unless somebody thinks of writing into the old file. What is sent is
not looked at here: signature, age and end are the gateway's to check (`security.oauth.file_source`). That it was sent is recorded
(`key_rotated`).
"""

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

import structlog

from appliance.config import Configuration
from appliance.messages.control import MAX_ISSUER_KEYS_BYTES, IssuerKeys
from appliance.supervisor.certificates import digest_of, replaced_event, stamp_of
from audit.entry import Json

INTERVAL_S = 5.0

log = structlog.get_logger(__name__)


class IssuerFilesWatch:
    """Owner of what was last seen of the files."""

    def __init__(
        self, configuration: Configuration, tell: Callable[[IssuerKeys], None], record: Callable[[Json], None]
    ) -> None:
        self._tell = tell
        self._record = record
        self._files = {one.issuer: Path(one.jwks_file) for one in configuration.issuers if one.jwks_file is not None}
        self._seen = {issuer: stamp_of(path) for issuer, path in self._files.items()}
        self._digests = {issuer: digest_of(path) for issuer, path in self._files.items()}

    async def run(self) -> None:
        """Watch for ever; to be cancelled."""
        while self._files:
            await asyncio.sleep(INTERVAL_S)
            self.check()

    def check(self) -> None:
        """Send what has changed. A file that is missing is on its way: the next look finds it."""
        for issuer, path in self._files.items():
            seen = stamp_of(path)
            if seen is None or seen == self._seen[issuer]:
                continue
            try:
                with path.open("rb") as file:
                    data = file.read(MAX_ISSUER_KEYS_BYTES + 1)
            except OSError as error:
                log.warning("issuer_keys_not_read", file=str(path), reason=error.strerror)
                continue
            self._seen[issuer] = seen
            if len(data) > MAX_ISSUER_KEYS_BYTES:
                log.warning("issuer_keys_not_read", file=str(path), reason="it is too large")
                continue
            self._tell(IssuerKeys(issuer, data))
            before, self._digests[issuer] = self._digests[issuer], hashlib.sha256(data).hexdigest()
            if before != self._digests[issuer]:
                self._record(replaced_event("issuer keys", issuer, before, self._digests[issuer]))
