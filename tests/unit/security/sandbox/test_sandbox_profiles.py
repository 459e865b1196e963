"""The table of what each role may touch, and how it travels to the launcher."""

import subprocess
import sys
from pathlib import Path

import pytest

from security.sandbox.launch import Confined, Plan, wrap
from security.sandbox.platform import Platform
from security.sandbox.profiles import CONFINED_ROLES, Code, ConfinedRole, Places, Profile, build_profile
from tests.support.controls import control

TLS = {"state/tls/server.pem", "state/tls/server.key"}
EVERYTHING = Platform(landlock_abi=7, no_empty_network="", has_filter=True, no_private_root="", no_own_users="")


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """An appliance's places."""
    state = tmp_path / "state"
    model = tmp_path / "model"
    model.mkdir()
    tls = (state / "tls/server.pem", state / "tls/server.key")
    return Places(
        state=state,
        models=(model,),
        definitions=state / "policy/definitions",
        credentials_key=state / "policy/credentials.key",
        tls_files=tls,
        authority_port=8444,
        database_port=0,
        issuer_files=(),
        issuer_ports=(),
        uses_gpu=False,
        kernels=(tmp_path / "kernels",),
        witness_ports=(8440,),
        witness_files=(tmp_path / "witness-ca.pem",),
        console_ports=(8443, 8444, 8445),
        console_key=state / "console/client.key",
        console_key_set=state / "console/client.jwks",
    )


def own(profile: Profile, places: Places) -> set[str]:
    """What of the appliance's own paths a profile names."""
    base = places.state.parent
    named = {Path(path) for path in (*profile.reads, *profile.writes) if Path(path).is_relative_to(base)}
    return {str(path.relative_to(base)) for path in named}


@control("3.1.5", "AC-6", "SC-3")
@pytest.mark.parametrize(
    ("role", "expected"),
    [
        ("gateway", {"model", "state/tls/server.pem", "state/tls/server.key", "state/gateway", "state/run/metrics"}),
        ("policy", {"state/policy/credentials.key", "state/policy/definitions", "state/console/client.jwks", *TLS}),
        ("engine", {"model", "kernels"}),
        ("auditor", {"state/audit"}),
        ("authority", {"state/policy/credentials.key", "state/authority", *TLS}),
        ("compiler", {"model"}),
        ("courier", {"witness-ca.pem"}),
        ("console", {"state/console/client.key", *TLS}),
        ("reader", {"state/audit/log", "state/audit/log.vkey", "state/reader"}),
    ],
)
def test_each_role_gets_its_own_paths_and_no_others(places: Places, role: ConfinedRole, expected: set[str]) -> None:
    """The private key of the certificate authority and the lock are nobody's."""
    assert own(build_profile(role, places, Code((Path("/code/security"),))), places) == expected


def test_a_gateway_that_seals_bodies_writes_them_and_reads_no_private_key(places: Places) -> None:
    """Public keys of auditors, and a folder of its own; the second shares are the auditor's."""
    sealing = places._replace(recipient_files=(places.state.parent / "ada.pub",))
    more = own(build_profile("gateway", sealing, Code(())), places) - own(
        build_profile("gateway", places, Code(())), places
    )
    assert more == {"ada.pub", "state/bodies"}


def test_the_reader_cannot_write_the_log(places: Places) -> None:
    """Nor read the keys that lie beside it."""
    profile = build_profile("reader", places, Code(()))
    assert profile.writes == (str(places.state / "reader"),)
    assert str(places.state / "audit") not in profile.reads


def test_engine_compiler_and_courier_write_nothing(places: Places) -> None:
    """What is written is the role's own folder."""
    writers = {role for role in CONFINED_ROLES if build_profile(role, places, Code(())).writes}
    assert writers == {"gateway", "policy", "auditor", "authority", "reader"}


@control("3.1.3", "AC-4", "SC-7(21)", "SI-4(22)")
def test_networks(places: Places) -> None:
    """Five have none; an engine of several ranks has `lo`; what may be connected to is named by port."""
    profiles = {role: build_profile(role, places, Code(())) for role in CONFINED_ROLES}
    assert {role for role, profile in profiles.items() if profile.network == "none"} == {
        "policy",
        "engine",
        "auditor",
        "compiler",
        "reader",
    }
    assert {role: profile.connects for role, profile in profiles.items() if profile.connects} == {
        "gateway": (8444,),
        "courier": (8440,),
        "console": (8443, 8444, 8445),
    }
    database = build_profile("policy", places._replace(database_port=5432), Code(()))
    assert (database.network, database.connects) == ("host", (5432,))
    trusting = places._replace(database_files=(places.state.parent / "database-ca.pem",))
    assert "database-ca.pem" in own(build_profile("policy", trusting, Code(())), trusting)
    upstream = places._replace(upstream_ports=(443,), upstream_files=(places.state.parent / "corp-ca.pem",))
    assert build_profile("authority", upstream, Code(())).connects == (443,)
    assert "corp-ca.pem" in own(build_profile("authority", upstream, Code(())), upstream)


def test_the_folder_around_our_packages_is_listed_but_not_read(places: Places) -> None:
    """In a clone the state folder lies beside the packages."""
    profile = build_profile("gateway", places, Code((Path("/clone/security"), Path("/clone/audit"))))
    assert "/clone" not in profile.reads
    assert profile.lists == ("/clone",)
    assert {"/clone/security", "/clone/audit"} <= set(profile.reads)


def test_links_out_of_a_model_folder_are_followed_but_not_into_the_state(places: Places, tmp_path: Path) -> None:
    """Download caches are made of links; a hostile folder could hold one to a key."""
    blob = tmp_path / "blobs" / "abc"
    key = places.state / "audit" / "log.key"
    for file in (blob, key):
        file.parent.mkdir(parents=True)
        file.touch()
    (places.models[0] / "config.json").symlink_to(blob)
    (places.models[0] / "tokenizer.json").symlink_to(key)
    assert own(build_profile("engine", places, Code(())), places) == {"model", "kernels", "blobs/abc"}


def test_gpu_files_only_where_a_gpu_is_used(places: Places) -> None:
    """And never for the gateway."""
    gpu = places._replace(uses_gpu=True)
    assert "/proc/driver/nvidia" in build_profile("engine", gpu, Code(())).reads
    assert "/proc/driver/nvidia" not in build_profile("engine", places, Code(())).reads
    assert "/proc/driver/nvidia" not in build_profile("gateway", gpu, Code(())).reads


def test_plan_and_result_survive_the_command_line(places: Places) -> None:
    """What the launcher reads is what the supervisor wrote, and so for the program after it."""
    plan = Plan(
        build_profile("gateway", places, Code((Path("/code/audit"),), ("/lib x",))), (7, 8), EVERYTHING, strict=True
    )
    command = wrap(["/bin/program", "--flag"], plan)
    assert Plan.decode(command[command.index("--") - 1]) == plan
    assert command[command.index("--") + 1 :] == ["/bin/program", "--flag"]
    confined = Confined("gateway", "host", False, ("files",), ("limits: no",), EVERYTHING, strict=True)
    assert Confined.decode(confined.encode()) == confined


@pytest.mark.parametrize(
    ("platform", "words"),
    [
        (EVERYTHING, []),
        (EVERYTHING._replace(landlock_abi=6), []),
        (EVERYTHING._replace(landlock_abi=2), ["ABI 2, rules for TCP need 4"]),
        (EVERYTHING._replace(landlock_abi=0), ["no Landlock", "rules for TCP"]),
        (EVERYTHING._replace(landlock_abi=1), ["ABI 1", "rules for TCP"]),
        (EVERYTHING._replace(no_empty_network="Operation not permitted"), ["(Operation not permitted)"]),
        (EVERYTHING._replace(no_private_root="Permission denied"), ["no private mounts (Permission denied)"]),
        (EVERYTHING._replace(has_filter=False), ["no system call filter"]),
    ],
)
def test_what_is_missing_is_said_in_words(platform: Platform, words: list[str]) -> None:
    """One sentence for each thing that the system lacks; none where nothing does."""
    missing = platform.describe_missing()
    assert len(missing) == len(words)
    assert all(word in sentence for word, sentence in zip(words, missing, strict=True))


def test_started_processes_find_no_more_packages_than_their_starter(tmp_path: Path) -> None:
    """An interpreter without `site` starts others without it: else each `.pth` file of the host would run in them."""
    code = "from security.sandbox.launch import interpreter; print(interpreter()[1:])"
    environment = {"PYTHONPATH": str(Path(__file__).parents[4])}
    for flags in ([], ["-S"], ["-S", "-B"]):
        command = [sys.executable, *flags, "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout == f"{flags}\n"
