"""The running appliance is confined: what the kernel says of each of its processes while it serves."""

import json
import os
from pathlib import Path

import openai
import pytest

from security.sandbox import landlock
from security.sandbox.platform import probe_platform
from security.sandbox.profiles import CONFINED_ROLES
from security.sandbox.users import DEFAULT_FIRST_UID, find_user
from tests.support.appliance import Appliance
from tests.support.controls import control

WITHOUT_NETWORK = ("engine/0", "auditor/0", "policy/0", "compiler/0", "reader/0")


def kernel_status(pid: int) -> dict[str, str]:
    """`/proc/PID/status` as a mapping."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


@control("CM-7(2)", "SC-39", "SI-16")
def test_every_process_but_the_supervisor_is_confined_and_serves(appliance: Appliance, sdk: openai.OpenAI) -> None:
    """Filter on, no new privileges, no capabilities; an answer comes all the same."""
    if not probe_platform().has_filter:
        pytest.skip("this system has no system call filters")
    for name, pid in appliance.pids().items():
        status = kernel_status(pid)
        confined = name != "supervisor"
        assert (status["Seccomp"], status["NoNewPrivs"]) == (("2", "1") if confined else ("0", "0")), name
        if confined:
            assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0, name
    answer = sdk.completions.create(model="casemate-demo", prompt="Hello", max_tokens=2)
    assert answer.usage is not None


@control("3.1.3", "AC-4", "SC-7(21)")
def test_engine_auditor_and_policy_have_no_network(appliance: Appliance) -> None:
    """Each is in a network namespace of its own, with nothing but a `lo` that is down."""
    if probe_platform().no_empty_network:
        pytest.skip(f"no network namespaces here: {probe_platform().no_empty_network}")
    own = os.readlink("/proc/self/ns/net")
    for name, pid in appliance.pids().items():
        try:
            network = os.readlink(f"/proc/{pid}/ns/net")
        except PermissionError:
            pytest.skip("only root may look into processes that hide their memory")
        assert (network != own) == (name in WITHOUT_NETWORK), name
        if name in WITHOUT_NETWORK:
            interfaces = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
            assert [line.split(":")[0].strip() for line in interfaces] == ["lo"], name


@control("3.1.5", "AC-6")
def test_each_role_is_a_user_of_its_own_where_the_supervisor_is_root(appliance: Appliance) -> None:
    """And everybody is the one who started it otherwise."""
    has_own = not probe_platform(DEFAULT_FIRST_UID).no_own_users
    for name, pid in appliance.pids().items():
        role = name.split("/")[0]
        is_own = has_own and role in CONFINED_ROLES
        expected = find_user(role, DEFAULT_FIRST_UID).uid if is_own else os.getuid()  # type: ignore[arg-type]
        assert kernel_status(pid)["Uid"].split() == [str(expected)] * 4, name


def test_the_log_says_what_was_applied(appliance: Appliance) -> None:
    """One line a process for the operator, with nothing that failed and nothing left out that the system can do."""
    lines = [json.loads(line) for line in appliance.log_file.read_text().splitlines() if '"event": "confined"' in line]
    platform = probe_platform()
    expected = {"no core dumps", "no new privileges", "no capabilities"}
    expected |= {"system calls"} if platform.has_filter else set()
    expected |= {"a file system of its own"} if not platform.no_private_root else set()
    for name, abi in (
        ("files", landlock.ABI_REFER),
        ("TCP ports", landlock.ABI_NETWORK),
        ("signals", landlock.ABI_SCOPE),
    ):
        expected |= {name} if platform.landlock_abi >= abi else set()
    assert len(lines) >= len(appliance.pids()) - 1
    for line in lines:
        assert (line["failed"], expected - set(line["applied"])) == ([], set()), line
