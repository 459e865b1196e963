"""Who runs a command: the kernel says it, and it is asked before the command becomes somebody else."""

import os
import pwd
from collections.abc import Iterator

import pytest

from appliance.cli import caller as caller_module
from appliance.cli.caller import actor, caller
from tests.support.controls import control


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    caller.cache_clear()
    yield
    caller.cache_clear()


@control("3.3.2", "AU-10")
def test_caller_is_who_the_kernel_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what the environment says; who logged in comes before who the process is."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "somebody-else")
    monkeypatch.setattr(caller_module, "_login_uid", lambda: os.geteuid())
    assert caller() == pwd.getpwuid(os.geteuid()).pw_name
    assert actor() == f"os:{caller()}"


def test_caller_stays_who_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among users that are lent the process is root, and was not called by root."""
    monkeypatch.setattr(caller_module, "_login_uid", lambda: 60_990)
    assert caller() == "uid 60990"
    monkeypatch.setattr(caller_module, "_login_uid", lambda: 0)
    assert caller() == "uid 60990"
