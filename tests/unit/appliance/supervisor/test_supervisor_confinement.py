"""From the configuration to the launcher's plan."""

from pathlib import Path

import pytest

from appliance.config import parse_configuration
from appliance.config.lacks import PROTECTIONS
from appliance.supervisor.confinement import _find_authorities, confine_command
from security.sandbox.launch import Plan
from security.sandbox.platform import Platform

COMMAND = ["/usr/bin/python3", "-m", "appliance.processes", "engine"]
EVERYTHING = Platform(7, "", has_filter=True, no_private_root="", no_own_users="")
TEXT = '[[engines]]\nmodel_path = "one"\n[[engines]]\nmodel_path = "two"\ndevice = "cuda"\n'


@pytest.fixture(autouse=True)
def platform(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that can do everything."""
    for user in ("appliance.supervisor.confinement", "appliance.config.lacks"):
        monkeypatch.setattr(f"{user}.probe_platform", lambda _first_uid=0: EVERYTHING)


def plan_of(tmp_path: Path, role: str, instance: int = 0, text: str = TEXT) -> Plan:
    """The plan in the command line."""
    command = confine_command(parse_configuration(text.encode(), tmp_path), role, instance, COMMAND, 9)  # type: ignore[arg-type]
    assert command[command.index("--") + 1 :] == COMMAND
    return Plan.decode(command[command.index("--") - 1])


def test_an_engine_reads_its_own_model_only(tmp_path: Path) -> None:
    """Of two engines neither reads the other's; only the one with a GPU gets its files."""
    first, second = plan_of(tmp_path, "engine", 0).profile, plan_of(tmp_path, "engine", 1).profile
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    assert (one in first.reads, two in first.reads, first.uses_gpu) == (True, False, False)
    assert (one in second.reads, two in second.reads, second.uses_gpu) == (False, True, True)


def test_an_engine_reads_its_own_scales_of_a_cache(tmp_path: Path) -> None:
    """The file may lie anywhere; the gateway has no use for it."""
    scales = 'kv_cache_dtype = "fp8_e4m3"\nquantization_param_path = "elsewhere/scales.json"\n'
    text = f"{TEXT}{scales}"
    path = str(tmp_path / "elsewhere/scales.json")
    reads = [
        plan_of(tmp_path, role, number, text=text).profile.reads for role, number in (("engine", 0), ("engine", 1))
    ]
    assert [path in read for read in reads] == [False, True]
    assert path not in plan_of(tmp_path, "gateway", text=text).profile.reads


def test_the_gateway_reads_all_models_and_may_connect_to_the_authority(tmp_path: Path) -> None:
    """Its port is the configured one."""
    profile = plan_of(tmp_path, "gateway", text=f"{TEXT}[authority]\nport = 9555\n").profile
    assert {str(tmp_path / "one"), str(tmp_path / "two"), str(tmp_path / "state/tls/server.key")} <= set(profile.reads)
    assert profile.connects == (9555,)
    assert str(tmp_path / "state/tls/ca.key") not in profile.reads


def test_policy_reads_what_the_databases_url_names_for_tls(tmp_path: Path) -> None:
    """Files by their paths, the machine's authorities by their word; what is no path is nobody's file."""
    url = "postgresql://u@db.example/c?hostaddr=10.6.0.1&sslmode=verify-full&sslkey=/etc/db/client.key&sslcert=relative"
    for root, expected in (("/etc/db/ca.pem", ("/etc/db/ca.pem",)), ("system", map(str, _find_authorities(None)))):
        text = f'{TEXT}[policy]\ndatabase_url = "{url}&sslrootcert={root}"\n'
        profile = plan_of(tmp_path, "policy", text=text).profile
        assert {"/etc/db/client.key", *expected} <= set(profile.reads)
        assert not any("relative" in path for path in profile.reads)
        assert profile.connects == (5432,)


def test_only_production_without_a_waiver_is_strict(tmp_path: Path) -> None:
    """Development never fails for a missing step."""
    others = ", ".join(f'"{name}"' for name in PROTECTIONS if name != "confinement")
    production = f'mode = "production"\nwaivers = [{others}, '
    assert plan_of(tmp_path, "auditor", text=f"{production}]\n{TEXT}").strict
    assert not plan_of(tmp_path, "auditor", text=f'{production}"confinement"]\n{TEXT}').strict
    assert not plan_of(tmp_path, "auditor").strict
    assert plan_of(tmp_path, "auditor").kept_fds == (9,)


def test_switched_off_it_is_the_bare_command(tmp_path: Path) -> None:
    """Nothing is in between."""
    configuration = parse_configuration(f"{TEXT}[confinement]\nenabled = false\n".encode(), tmp_path)
    assert confine_command(configuration, "engine", 0, COMMAND, 9) == COMMAND
