"""What an earlier pack was made of, so that it can be made once more and compared byte by byte.

A log that is written to goes on, the record that a pack was made among what comes next: so two packs are alike only under one
signed tree, with one time, and beside one word of the witnesses. All of that stands in the first pack. What is not taken from it is
looked at anew: the installation, the software, statements and results; where those changed, the packs differ, and say in what.
"""

from dataclasses import dataclass
from pathlib import Path

from audit.note import MAX_NOTE_BYTES
from compliance.manifest import (
    CHECKPOINT,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    RECORDS,
    PackManifest,
    parse_manifest,
    read_bounded,
)
from compliance.period import Period, make_period, parse_time
from compliance.witnessing import COSIGNED


@dataclass(frozen=True, slots=True)
class EarlierPack:
    """What is taken from it. Nothing of it is believed: the tree's signature and the range are verified as the new one is made."""

    manifest: PackManifest
    checkpoint: bytes
    cosigned: bytes

    @property
    def period(self) -> Period:
        """The same period."""
        return make_period(parse_time(self.manifest.period_start), parse_time(self.manifest.period_end))

    @property
    def made_at_ms(self) -> int:
        """The same moment."""
        return parse_time(self.manifest.made_at)

    @property
    def with_records(self) -> bool:
        """Whether every record was in it."""
        return any(file.name.startswith(RECORDS) for file in self.manifest.files)


def load_earlier(folder: Path) -> EarlierPack:
    """Read what is needed of a pack.

    Raises: PackRejected where it is none; PeriodRejected; OSError.
    """
    manifest = parse_manifest(read_bounded(folder / MANIFEST, MAX_MANIFEST_BYTES))
    cosigned = folder / COSIGNED
    return EarlierPack(
        manifest,
        read_bounded(folder / CHECKPOINT, MAX_NOTE_BYTES),
        read_bounded(cosigned, MAX_NOTE_BYTES) if cosigned.is_file() else b"",
    )
