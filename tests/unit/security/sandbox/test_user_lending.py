"""Users that are lent: root over the roles' ids and over nothing else, for one user alone."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from security.errors import UsersNotLent
from security.sandbox import lending
from security.sandbox.users import DEFAULT_FIRST_UID, FIRST_FREE_ID, LAST_FREE_ID, find_user
from tests.support.controls import control
from tests.support.waiting import GIVE_UP_S, wait_until

ROOT = Path(__file__).parents[4]
USER, STRANGER = 60_990, 60_991
GATEWAY = find_user("gateway", DEFAULT_FIRST_UID)
BORROW = """\
import json, os, sys
from pathlib import Path
from security.sandbox import lending, platform
from security.sandbox.users import find_user

def attempt(act):
    try:
        act()
        return ""
    except OSError as error:
        return error.strerror

socket, place = Path(sys.argv[1]), sys.argv[2]
found = {"lent": lending.borrow_users(socket), "why": lending.why_not_lent(), "euid": os.geteuid()}
first = int(sys.argv[3])
if found["lent"]:
    found["platform"] = platform.probe_platform(first).no_own_users
    found["elsewhere"] = platform.probe_platform(first + 100).no_own_users
    found["gives"] = attempt(lambda: os.chown(f"{place}/own", first, first))
    found["takes"] = attempt(lambda: os.chown(f"{place}/roots", 0, 0))
    found["reads"] = attempt(lambda: open(f"{place}/roots").close())
    found["others"] = attempt(lambda: os.setresuid(1, 1, 1))
    found["owner"] = os.stat(f"{place}/roots").st_uid
    found["time"] = attempt(lambda: __import__("time").clock_settime(0, 1e9))
    found["becomes"] = attempt(lambda: (os.setgroups([]), os.setresgid(first, first, first), os.setresuid(first, first, first)))
    found["uid"] = os.getuid()
print(json.dumps(found))
"""


def why_not() -> str:
    if os.geteuid() != 0:
        return "needs root, to be a service of two capabilities"
    return "" if shutil.which("setpriv") else "setpriv is not installed"


pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


def as_user(uid: int, *command: str, capabilities: str = "") -> subprocess.Popen[str]:
    """A process of a plain user, with these capabilities and with no others to be had."""
    kept = "".join(f",+{name}" for name in capabilities.split())
    options = [f"--{kind}=-all{kept}" for kind in ("inh-caps", "ambient-caps", "bounding-set")]
    words = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs", *options, *command]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(words, cwd="/", env=environment, umask=0o077, text=True, **pipes)  # As the unit has it.


def borrow(uid: int, place: Path) -> dict[str, object]:
    """What a process of this user gets, and can do with it."""
    process = as_user(uid, sys.executable, "-c", BORROW, str(place / "socket"), str(place), str(DEFAULT_FIRST_UID))
    out, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    found: dict[str, object] = json.loads(out)
    return found


@pytest.fixture
def lent() -> Iterator[Path]:
    """A folder of the user's with the socket of a lender that has two capabilities, and files of the user's and of root's."""
    with tempfile.TemporaryDirectory(prefix="casemate-lent-") as folder:  # Others cannot enter pytest's.
        yield from lend(Path(folder))


def lend(place: Path) -> Iterator[Path]:
    """It, as long as the lender runs."""
    place.chmod(0o755)
    for name in ("own", "roots"):
        (place / name).write_text("x")
        (place / name).chmod(0o600)
    for path in (place, place / "own"):
        os.chown(path, USER, USER)
    words = ("-m", "appliance.cli.main", "lend-users", "--socket", str(place / "socket"))
    lender = as_user(USER, sys.executable, *words, capabilities="setuid setgid")
    try:
        wait_until(lambda: (place / "socket").exists() or lender.poll() is not None)
        assert lender.poll() is None, lender.stderr and lender.stderr.read()
        yield place
    finally:
        lender.terminate()
        lender.communicate()


@control("3.1.5", "AC-6")
def test_borrower_is_root_over_the_roles_and_nobody_else(lent: Path) -> None:
    """It may give files away and become a role; root's files, other users and the machine are out of its reach."""
    assert borrow(USER, lent) == {
        "lent": True, "why": "", "euid": 0,
        "platform": "",
        "elsewhere": f"the ids from {DEFAULT_FIRST_UID + 100} on do not exist here: a user namespace has others",
        "gives": "", "takes": "Operation not permitted", "reads": "Permission denied", "others": "Invalid argument",
        "owner": 65534, "time": "Operation not permitted",
        "becomes": "", "uid": GATEWAY.uid,
    }  # fmt: skip
    assert (lent / "own").stat().st_uid == GATEWAY.uid
    assert borrow(USER, lent)["lent"] is True  # As often as it is asked.


def test_nobody_else_is_lent_to(lent: Path) -> None:
    """The socket is closed to others; where it is not, the lender looks who asks. Nothing has happened to who was refused."""
    for mode, why in ((0o600, "Permission denied"), (0o666, f"uid {STRANGER}, gid {STRANGER} is not who is lent to")):
        (lent / "socket").chmod(mode)
        refused = borrow(STRANGER, lent)
        assert (refused["lent"], refused["euid"]) == (False, STRANGER)
        assert str(refused["why"]).endswith(f"lends none: {why}")


def test_borrowers_that_talk_nonsense_stop_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silent, gone in the middle, other words, without a namespace of its own: each is given up, and the next one is served."""
    monkeypatch.setattr(lending, "_ANSWER_S", GIVE_UP_S)
    address = tmp_path / "socket"
    listener = lending.listen(address)

    def lend_on() -> None:
        with contextlib.suppress(OSError):  # How the test ends it.
            lending.lend_for_ever(listener, DEFAULT_FIRST_UID)

    lender = threading.Thread(target=lend_on)
    lender.start()

    def talk(*messages: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as borrower:
            borrower.settimeout(GIVE_UP_S)
            borrower.connect(str(address))
            answer = b""
            for message in messages:
                borrower.send(message)
                answer = borrower.recv(256)
            return answer

    talk()
    assert talk(b"ids, please") == b"are you there?"
    assert b"expected 'ids, please'" in talk(b"x" * 256)
    assert b"expected 'here'" in talk(b"ids, please", b"there")
    assert talk(b"ids, please", b"here") == b"Operation not permitted"  # The host's own map is not to be written.
    monkeypatch.setattr(lending, "_ANSWER_S", 0.2)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
        silent.settimeout(GIVE_UP_S)
        silent.connect(str(address))
        assert silent.recv(256) == b"timed out"
    monkeypatch.setattr(lending, "_ANSWER_S", GIVE_UP_S)
    assert talk(b"ids, please") == b"are you there?"
    listener.shutdown(socket.SHUT_RDWR)
    lender.join()
    listener.close()


def test_ids_of_people_are_not_lent(tmp_path: Path) -> None:
    """The range is one that systemd's table leaves to nobody."""
    with lending.listen(tmp_path / "socket") as listener:
        for first_uid in (0, 1000, FIRST_FREE_ID - 1, LAST_FREE_ID - 30):
            with pytest.raises(ValueError, match="expected 32 ids"):
                lending.lend_for_ever(listener, first_uid)


def test_process_between_two_sets_of_users_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lender that goes away after the namespace was made: the process would be nobody, and says so instead of going on."""
    monkeypatch.setattr(os, "geteuid", lambda: USER)
    monkeypatch.setattr(lending.kernel, "unshare", lambda _flags: None)
    with lending.listen(tmp_path / "socket") as listener:

        def serve() -> None:
            borrower, _ = listener.accept()
            with borrower:
                borrower.recv(256)
                borrower.send(b"are you there?")

        lender = threading.Thread(target=serve)
        lender.start()
        with pytest.raises(UsersNotLent, match="socket"):
            lending.borrow_users(tmp_path / "socket")
        lender.join()
