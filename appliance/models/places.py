"""Where models, trust and notices lie below a state folder."""

import datetime
from pathlib import Path

from security.bundles.trust import HostTrust
from security.stewards.outbox import Outbox
from security.stewards.store import ModelStore

STORE, TRUST, OUTBOX = "models", "trust", "outbox"


def open_store(state: Path) -> ModelStore:
    """The model store below a state folder."""
    return ModelStore(state / STORE)


def open_trust(state: Path) -> HostTrust:
    """What the host believes."""
    return HostTrust(state / TRUST)


def open_outbox(state: Path) -> Outbox:
    """What waits for the log."""
    return Outbox(state / OUTBOX)


def utc_now() -> datetime.datetime:
    """The time by which role files and certificates are judged."""
    return datetime.datetime.now(datetime.UTC)
