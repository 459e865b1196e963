"""What the tests of evidence share: one log of a made-up month, and a pack over it, for all that only read them."""

from pathlib import Path

import pytest

from audit.note import VerifierKey
from audit.signing_key import load_verifier_key
from compliance.pack import WrittenPack
from tests.support.evidence import FIRST_MS, MONTH_MS, order_pack, write_made_up_pack
from tests.support.synthetic_logs import write_log

NUM_RECORDS = 1000


@pytest.fixture(scope="session")
def month(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `log`, `log.key` and `log.vkey`: records from the first moment of a month to the last."""
    home = tmp_path_factory.mktemp("month")
    write_log(home, NUM_RECORDS, first_ms=FIRST_MS, last_ms=FIRST_MS + MONTH_MS - 1)
    return home


@pytest.fixture(scope="session")
def log_key(month: Path) -> VerifierKey:
    """The log's public key."""
    return load_verifier_key(str(month / "log.vkey"))


@pytest.fixture(scope="session")
def made(month: Path) -> WrittenPack:
    """A pack for CMMC in `month / "shared"`; not to be changed."""
    return write_made_up_pack(order_pack(), month, "shared")
