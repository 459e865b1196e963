"""A clock that jumped while the appliance ran suspends installs until the next start."""

from pathlib import Path

import pytest

from appliance.cli.host_clock import verify_clock_was_left
from appliance.cli.main import EXIT_OK, main
from appliance.models.places import open_outbox
from audit.append import LogWriter
from audit.entry import encode_canonical
from audit.events import log_event
from security.errors import TrustUnusable
from tests.support.controls import control

STARTED = ("log_started", False)
SMALL, LARGE = ("log_clock_jumped", False), ("log_clock_jumped", True)


def write(state: Path, *kinds: tuple[str, bool]) -> None:
    """A log of these, each a failure or not."""
    audit = state / "audit"
    audit.mkdir(parents=True)
    writer = LogWriter(audit / "log", audit / "log.key", origin="log.example/clock")
    for index, (kind, is_failure) in enumerate(kinds):
        event = log_event(
            kind, log_name="log.example/clock", facts={}, detail="the clock was set", is_failure=is_failure
        )
        writer.append([encode_canonical(event | {"metadata": event["metadata"] | {"sequence": index}})])
    writer.commit()
    writer.publish()
    writer.close()


@control("AU-8", "SI-7", "3.3.7")
@pytest.mark.parametrize(
    ("kinds", "is_refused"),
    [
        ((STARTED,), False),
        ((STARTED, SMALL), False),
        ((STARTED, LARGE), True),
        ((STARTED, LARGE, *[SMALL] * 600), True),
        ((STARTED, LARGE, STARTED), False),
    ],
    ids=["no jump", "a small one", "a large one", "long ago", "looked at"],
)
def test_a_large_jump_since_the_last_start_is_refused(
    tmp_path: Path, kinds: tuple[tuple[str, bool], ...], is_refused: bool
) -> None:
    """However long ago; one that somebody has looked at, and started anew, is over."""
    write(tmp_path, *kinds)
    if is_refused:
        with pytest.raises(TrustUnusable, match="the clock was set: see that the clock is right"):
            verify_clock_was_left(tmp_path)
    else:
        verify_clock_was_left(tmp_path)


def test_a_host_that_never_ran_has_no_log(tmp_path: Path) -> None:
    """The first install comes before the first start."""
    verify_clock_was_left(tmp_path)


def test_an_install_is_refused_and_that_is_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before the medium is looked at."""
    write(tmp_path / "host" / "state", STARTED, LARGE)
    assert main(["bundle", "install", str(tmp_path / "medium"), "--host", str(tmp_path / "host")]) != EXIT_OK
    assert "start the appliance anew" in capsys.readouterr().err
    ((_, notice),) = open_outbox(tmp_path / "host" / "state").waiting()
    assert notice.kind == "software_install_refused"
