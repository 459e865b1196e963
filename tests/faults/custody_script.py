"""What runs under strace of sealed bodies and of the rules about them: keys and a root are kept, bodies sealed, a retention is set
by two people, and what is older is destroyed. The auditor's own service, over files; a line said is what was promised to somebody.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from appliance.auditor.stewardship import Custody
from appliance.gateway.errors import PeerUnavailable
from appliance.gateway.flow.bodies import SealingKey
from appliance.messages.reading import ReadBy
from appliance.messages.stewardship import (
    BodiesDestroyed,
    BodyKeyKept,
    DecideChange,
    HashRootKept,
    KeepBodyKey,
    KeepHashRoot,
    ProposeChange,
    RulesNow,
)
from audit.keyed_hash import root_context
from audit.sealing import KeyContext
from tests.unit.appliance.auditor.conftest import Auditor, FakePeer

TODAY = "2026-11-23"
DAY_S = 86_400.0
RETENTION_DAYS, NEW_DAYS = 2, 3
OLD_KEY, NEW_KEY = "0" * 32, "1" * 32
SECRET = bytes(range(32))
ADA = ReadBy("console", "ada", "default", "jti-1", "10.0.0.9", 4000)
RUDI = ReadBy("console", "rudi", "default", "jti-2", "10.0.0.8", 4000)
BODIES = [b"a prompt", b"x" * 70_000, b"an answer"]

Say = Callable[[str], None]


def open_auditor(home: Path) -> tuple[Auditor, FakePeer]:
    """The service as it starts, and a gateway."""
    auditor = Auditor(home, custody=Custody(retention_days=RETENTION_DAYS))
    return auditor, auditor.connect("gateway")


def prepare_custody(home: Path) -> None:
    """A stopped auditor that keeps a key of today, which is old when the script is through."""
    auditor, gateway = open_auditor(home)
    auditor.tell(gateway, KeepBodyKey(1, "t", TODAY, OLD_KEY, b"[]"))
    auditor.service.stop()
    auditor.die()


def run_custody(home: Path, say: Say) -> None:
    """All of it once. Raises: StorageFailed, and what a start refuses."""
    auditor, gateway = open_auditor(home)

    def ask(message: Any, kind: type[Any]) -> Any:
        gateway.take()
        auditor.tell(gateway, message)
        found = gateway.take(kind)
        return found[0] if found else None

    if kept := ask(KeepBodyKey(1, "t", TODAY, NEW_KEY, b"[]"), BodyKeyKept):
        say(f"kept {NEW_KEY} {hashlib.sha256(kept.share).hexdigest()}")
    if root := ask(KeepHashRoot(2, "t", TODAY, SECRET, b"[]"), HashRootKept):
        say(f"kept {root_context('t', TODAY).key_id} {hashlib.sha256(root.root).hexdigest()}")
    proposed = ask(ProposeChange(3, ADA, "auditor", "retention", "because", NEW_DAYS, "", "", "", ""), RulesNow)
    if proposed and ask(DecideChange(4, RUDI, "admin", proposed.changed_id, True), RulesNow):
        say("in force")
    gateway.take()
    auditor.pass_time(5 * DAY_S)
    for told in gateway.take(BodiesDestroyed):
        for key_id in told.key_ids:
            say(f"destroyed {key_id}")
    auditor.service.stop()
    auditor.die()


def run_seal(home: Path, say: Say) -> None:
    """The gateway's half: bodies one behind the other."""
    key = SealingKey(AESGCM(SECRET), KeyContext("t", TODAY, NEW_KEY), home / "bodies" / TODAY / f"{NEW_KEY}.sealed")
    for number, body in enumerate(BODIES):
        try:
            kept = key.seal(f"req-{number}", "prompt", body)
        except PeerUnavailable:
            say("refused")
            continue
        say(f"sealed {number} {kept['offset']} {kept['length']} {kept['sha256']}")
