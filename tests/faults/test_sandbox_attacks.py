"""A captured process of each role tries what it can, under the real launcher, filter and profiles: as root and as a plain user.

Each role is attacked several times: under both stages, under the launcher's alone, and under each mechanism alone (Landlock, the
private root, the filter, a user of its own), so that none hides a hole of another.
"""

import fcntl
import json
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from appliance.policy.locations import CREDENTIALS_FILE, DATABASE_FILE
from appliance.supervisor.ownership import find_owner, settle
from security.sandbox import landlock
from security.sandbox.launch import Plan, wrap
from security.sandbox.platform import Platform, probe_platform
from security.sandbox.profiles import CONFINED_ROLES, Code, ConfinedRole, Places, build_profile
from security.sandbox.users import DEFAULT_FIRST_UID, User, find_user
from tests.support.controls import control

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("sandbox_attack.py")
PACKAGES = tuple(ROOT / name for name in ("appliance", "compliance", "runtime", "security", "audit"))
BESIDE_PACKAGES = ROOT / "pyproject.toml"
"""In a folder that is listed for imports, where a clone has its state."""
NOBODY = 65534
Stages = Literal["both", "launcher", "filter", "mounts", "landlock"]
DANGEROUS = [
    "mount", "open_tree", "chroot", "unshare", "setns", "bpf", "perf_event_open", "keyctl", "add_key",
    "request_key", "kexec_load", "init_module", "finit_module", "userfaultfd", "io_uring_setup", "io_uring_enter",
    "personality", "setuid", "ptrace", "swapon", "reboot", "sethostname", "acct", "shmget", "mq_open",
    "fanotify_init", "name_to_handle_at", "open_by_handle_at", "mknod", "modify_ldt", "seccomp", "chmod", "chown",
    "truncate", "setxattr", "symlink", "terminal", "TIOCLINUX 541C", "TIOCSETD 5423", "FIOSETOWN 8901", "SIOCSPGRP 8902",
    "F_SETSIG", "F_SETOWN_EX",
]  # fmt: skip
REFUSED = {"EPERM", "EACCES", "EXDEV"}
ABSENT = {"ENOENT", "EROFS"}
"""How a file system answers that has no such place, or none to write in: refused as well, where it is known to be one."""
NOT_HERE = "not in this test"
WITHOUT_ANYTHING = Platform(0, NOT_HERE, has_filter=True, no_private_root=NOT_HERE, no_own_users=NOT_HERE)

pytestmark = [
    pytest.mark.skipif(landlock.probe_abi() < landlock.ABI_SCOPE, reason="needs Landlock ABI 6 (Linux 6.12)"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the attacks know the numbers of x86_64"),
]

OWN_FILES: dict[ConfinedRole, tuple[str, ...]] = {
    "gateway": ("gateway/responses.key", "tls/server.key", "tls/server.pem", "model/config.json"),
    "policy": (CREDENTIALS_FILE, DATABASE_FILE, "console/client.jwks", "tls/server.key", "tls/server.pem"),
    "engine": ("model/config.json",),
    "auditor": ("audit/log.key", "audit/log.vkey", "audit/log/checkpoint"),
    "authority": (
        CREDENTIALS_FILE, "authority/signing/s.pem", "tls/server.key", "tls/server.pem",
    ),
    "compiler": ("model/config.json",),
    "reader": ("audit/log.vkey", "audit/log/checkpoint"),
    "courier": ("witnesses.pem",),
    "console": ("console/client.key", "tls/server.key", "tls/server.pem"),
}  # fmt: skip
OWN_FOLDERS: dict[ConfinedRole, tuple[str, ...]] = {
    "gateway": ("gateway", "run/metrics"),
    "policy": (str(Path(DATABASE_FILE).parent),),
    "engine": (),
    "auditor": ("audit", "audit/log"),
    "authority": ("authority", "authority/signing"),
    "compiler": (),
    "reader": ("reader",),
    "courier": (),
    "console": (),
}
CONNECTS: dict[ConfinedRole, str] = {"gateway": "authority", "courier": "witness", "console": "authority"}
"""Who may connect, and the one listener that is theirs."""
ACCEPTS = ("gateway", "policy", "authority", "console")
WITHOUT_NETWORK = ("engine", "auditor", "policy", "compiler", "reader")
ALL_FILES = sorted({file for files in OWN_FILES.values() for file in files} | {"tls/ca.key", "lock"})
ALL_FOLDERS = sorted({folder for folders in OWN_FOLDERS.values() for folder in folders} | {"", "tls", "model"})


class Scene:
    """An appliance's folders, a sibling process of the same user, and listeners to reach for."""

    def __init__(self, user: str, base: Path) -> None:
        self.uid = NOBODY if user == "plain" and os.getuid() == 0 else os.getuid()
        self.base = base
        self.state = base / "state"
        self.model = self.state / "model"
        for folder in ALL_FOLDERS:
            (self.state / folder).mkdir(parents=True, exist_ok=True, mode=0o700)
        for file in ALL_FILES:
            (self.state / file).parent.mkdir(parents=True, exist_ok=True)
            (self.state / file).write_bytes(b"secret")
            (self.state / file).chmod(0o700)  # So that it is not the mode that keeps anybody from executing it.
        self.outside = base / "outside"
        self.outside.write_text("x")
        self._give(base, *base.rglob("*"))
        self.sibling = subprocess.Popen(["/bin/sleep", "1000"], **self.as_user())
        self.listeners = {name: socket.create_server(("127.0.0.1", 0)) for name in ("authority", "witness", "other")}
        self.ports = {name: listener.getsockname()[1] for name, listener in self.listeners.items()}
        self.abstract = f"{base.name}-{self.uid}"
        self.abstract_stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.abstract_stream.bind(f"\0{self.abstract}")
        self.abstract_stream.listen()
        self.abstract_datagram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.abstract_datagram.bind(f"\0{self.abstract}-d")
        self.outcomes: dict[tuple[ConfinedRole, Stages], dict[str, Any]] = {}

    def _give(self, *paths: Path) -> None:
        for path in paths:
            os.chown(path, self.uid, self.uid if self.uid == NOBODY else -1)  # Root alone gives files away.

    def _lay_out_victims(self, role: ConfinedRole) -> None:
        """Files to be harmed, as they were before an earlier attack, and own folders without what it made."""
        victims = self.state / "victims"
        shutil.rmtree(victims, ignore_errors=True)
        for folder in (victims, victims / "folder"):
            folder.mkdir(mode=0o700)
        for name in ("unlinked", "renamed", "linked", "moved"):
            (victims / name).write_bytes(b"secret")
            (victims / name).chmod(0o700)
        self._give(victims, *victims.iterdir())
        for folder in (self.state / name for name in OWN_FOLDERS[role]):
            for made in folder.glob("a-*"):
                made.unlink()

    def as_user(self) -> dict[str, Any]:
        """How to start a process as this scene's user."""
        return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if self.uid != os.getuid() else {}

    def close(self) -> None:
        self.sibling.kill()
        self.sibling.wait()
        for sock in (*self.listeners.values(), self.abstract_stream, self.abstract_datagram):
            sock.close()

    def places(self) -> Places:
        return Places(
            state=self.state,
            models=(self.model,),
            definitions=(self.state / DATABASE_FILE).parent,
            credentials_key=self.state / CREDENTIALS_FILE,
            tls_files=(self.state / "tls" / "server.pem", self.state / "tls" / "server.key"),
            authority_port=self.ports["authority"],
            database_port=0,
            issuer_files=(),
            issuer_ports=(),
            uses_gpu=False,
            witness_ports=(self.ports["witness"],),
            witness_files=(self.state / "witnesses.pem",),
            console_ports=(self.ports["authority"],),
            console_key=self.state / "console" / "client.key",
            console_key_set=self.state / "console" / "client.jwks",
        )

    def attack(self, role: ConfinedRole, stages: Stages = "both") -> dict[str, Any]:
        """What came of each attack; run once."""
        platform = probe_platform()
        if stages == "mounts":
            platform = platform._replace(landlock_abi=0)
        if stages == "filter":
            platform = WITHOUT_ANYTHING
        if stages == "landlock":
            platform = WITHOUT_ANYTHING._replace(landlock_abi=platform.landlock_abi, has_filter=False)
        if (role, stages) not in self.outcomes:
            self.outcomes[role, stages] = self.attack_on(role, platform, filtered=stages in ("both", "filter"))
        return self.outcomes[role, stages]

    def attack_if_possible(self, role: ConfinedRole, stages: Stages) -> dict[str, Any]:
        """The same; skips where the stage to be tried alone is missing."""
        if stages == "mounts" and (reason := probe_platform().no_private_root):
            pytest.skip(f"no private mounts here: {reason}")
        return self.attack(role, stages)

    def attack_on(
        self,
        role: ConfinedRole,
        platform: Platform,
        *,
        filtered: bool,
        user: User | None = None,
        **places: Any,
    ) -> dict[str, Any]:
        """What came of each attack where the platform can do no more than this."""
        self._lay_out_victims(role)
        targets = {
            "own": [str(self.state / folder) for folder in OWN_FOLDERS[role]],
            "executes": [str(self.state / file) for file in OWN_FILES[role]],
            "state": str(self.state),
            "sibling": self.sibling.pid,
            "reads": [
                *(str(self.state / file) for file in ALL_FILES),
                *("/etc/shadow", "/etc/passwd", str(self.outside), str(BESIDE_PACKAGES)),
            ],
            "writes": [
                *(str(self.state / folder / "new") for folder in ALL_FOLDERS),
                str(self.base / "new"),
                "/tmp/new",
            ],
            "ports": self.ports,
            "abstract": self.abstract,
            "abstract_datagram": f"{self.abstract}-d",
            "filtered": filtered,
            "other_uid": find_user("courier" if role != "courier" else "gateway", DEFAULT_FIRST_UID).uid,
        }
        below = os.open(self.outside, os.O_RDONLY)
        control, theirs = socket.socketpair()
        kept = theirs.fileno()
        leaked = below, fcntl.fcntl(below, fcntl.F_DUPFD, kept + 1)
        assert below < kept
        with control, theirs:
            profile = build_profile(role, self.places()._replace(**places), Code(PACKAGES, (str(SCRIPT.parent),)))
            plan = Plan(profile, (kept,), platform, strict=False, user=user)
            command = [sys.executable, str(SCRIPT), "--targets", json.dumps(targets), "--control-fd", str(kept)]
            run = subprocess.run(
                wrap(command, plan), capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
                pass_fds=(kept, *leaked), env={"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}, **self.as_user(),
            )  # fmt: skip
            for descriptor in leaked:
                os.close(descriptor)
        assert run.returncode in (0, 1), run.stderr
        outcome: dict[str, Any] = {"kept": kept, "stderr": run.stderr}
        for line in run.stdout.splitlines():
            outcome |= json.loads(line)
        assert "applied" in outcome, run.stderr
        return outcome


@pytest.fixture(scope="module", params=["root", "plain"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """One scene for each kind of user: root attacks as itself and as nobody, a plain user as itself alone."""
    if os.getuid() != 0 and request.param == "root":
        pytest.skip("the attacks as root need to be started by root")
    base = Path(tempfile.mkdtemp(prefix="casemate-sandbox-"))
    base.chmod(0o755)
    made = Scene(request.param, base)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(base)


def refused(outcomes: dict[str, Any], names: list[str]) -> dict[str, str]:
    """Those attacks that were not refused: to be compared with {}, so that a failure names them."""
    how = REFUSED | (ABSENT if "a file system of its own" in outcomes["applied"] else set())
    return {name: outcomes[name] for name in names if outcomes[name] not in how}


roles = pytest.mark.parametrize("role", CONFINED_ROLES)


@roles
def test_everything_is_applied(scene: Scene, role: ConfinedRole) -> None:
    """On a system that can, nothing is left out, and the kernel says so itself."""
    outcomes = scene.attack(role)
    status = outcomes["status"]
    assert outcomes["failed"] == []
    assert {"no core dumps", "no new privileges", "no capabilities", "files", "TCP ports", "signals"} <= set(
        outcomes["applied"]
    )
    assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1")
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    if scene.uid == 0 or "an empty network" in outcomes["applied"]:  # Others may not lower the bounding set.
        assert status["CapBnd"] == "0" * 16


@roles
def test_limits_are_the_profiles(scene: Scene, role: ConfinedRole) -> None:
    """No core dump with prompts and keys in it, as many descriptors as the profile says, no real-time priority."""
    limits = scene.attack(role)["limits"]
    bound = str(build_profile(role, scene.places(), Code(PACKAGES)).max_open_files)
    names = ("Max core file size", "Max open files", "Max realtime priority", "Max msgqueue size")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    bound = bound if hard == resource.RLIM_INFINITY else str(min(int(bound), hard))
    assert [limits[name] for name in names] == [["0", "0"], [bound, bound], ["0", "0"], ["0", "0"]]


@roles
def test_being_root_means_nothing_afterwards(scene: Scene, role: ConfinedRole) -> None:
    """Securebits: user 0 gets no capability by exec, and cannot change that."""
    if scene.uid != 0:
        pytest.skip("a plain user has no capability to set them with")
    assert scene.attack(role)["securebits"] == "done"


@roles
@pytest.mark.parametrize("stages", ["both", "filter"])
def test_the_filter_binds_threads_of_before_and_hides_memory(scene: Scene, role: ConfinedRole, stages: Stages) -> None:
    """Libraries start threads when they are imported; a debugger of the same user finds nothing to read."""
    outcomes = scene.attack(role, stages)
    assert refused(outcomes, ["early thread"]) == {}
    assert outcomes["hidden"] == "done"


@roles
def test_only_the_control_descriptor_is_inherited(scene: Scene, role: ConfinedRole) -> None:
    """Descriptors that were left inheritable by mistake are closed, whether their numbers are smaller or larger."""
    outcomes = scene.attack(role)
    assert outcomes["descriptors"] == [0, 1, 2, outcomes["kept"]]


@control("3.1.5", "3.3.8", "3.13.2", "AC-6", "AU-9", "SC-3", "SC-39")
@roles
@pytest.mark.parametrize("stages", ["both", "launcher", "mounts", "landlock"])
def test_files_of_other_roles_cannot_be_read(scene: Scene, role: ConfinedRole, stages: Stages) -> None:
    """Its own files open, and nothing else: not the keys of the others, not the system's passwords.

    Landlock alone says so, and the private root alone, in which they do not exist.
    """
    outcomes = scene.attack_if_possible(role, stages)
    own = [f"read {scene.state / file}" for file in OWN_FILES[role]]
    others = [name for name in outcomes if name.startswith("read ") and name not in own]
    assert {outcomes[name] for name in own} == {"done"}
    assert refused(outcomes, others) == {}
    assert len(others) >= len(ALL_FILES) - len(own)


@control("3.1.5", "3.3.8", "AC-6", "AU-9")
@roles
@pytest.mark.parametrize("stages", ["both", "launcher", "mounts", "landlock"])
def test_nothing_is_written_outside_own_folders(scene: Scene, role: ConfinedRole, stages: Stages) -> None:
    """Own folders take new files; the model, other roles' folders and /tmp do not."""
    outcomes = scene.attack_if_possible(role, stages)
    own = [f"write {scene.state / folder / 'new'}" for folder in OWN_FOLDERS[role]]
    others = [name for name in outcomes if name.startswith("write ") and name not in own]
    assert {outcomes[name] for name in own if name in outcomes} <= {"done"}
    assert refused(outcomes, others) == {}


@control("3.1.20", "3.4.7", "3.13.1", "3.13.6", "AC-20", "AC-20(1)", "SC-7", "SC-7(5)", "SI-4(22)")
@roles
@pytest.mark.parametrize("stages", ["both", "launcher", "filter", "landlock"])
def test_only_gateway_and_courier_connect_and_only_where_they_must(
    scene: Scene, role: ConfinedRole, stages: Stages
) -> None:
    """Each stage alone keeps everybody else off the network; the ports of these two are Landlock's to bound."""
    outcomes = scene.attack(role, stages)
    reached = {name for name in scene.ports if outcomes[f"connect {name}"] == "done"}
    if role in CONNECTS:
        assert reached == (set(scene.ports) if stages == "filter" else {CONNECTS[role]})
    else:
        assert reached == set()
    if stages != "launcher":  # There the network may be one without an address to bind to.
        assert refused(outcomes, ["bind"]) == {}


@roles
def test_sockets_of_other_kinds_cannot_be_made(scene: Scene, role: ConfinedRole) -> None:
    """No datagrams, raw, netlink or Unix sockets to dial other services with; streams for those alone that connect."""
    outcomes = scene.attack(role)
    names = ["udp", "raw", "netlink", "vsock", "unix", "abstract", "datagram pair"]
    assert refused(outcomes, [*names, *(["tcp"] if role not in CONNECTS else [])]) == {}


@control("3.4.6", "3.4.7", "3.4.8", "3.14.2", "CM-7", "CM-7(2)", "CM-7(5)", "SI-3")
@roles
@pytest.mark.parametrize("stages", ["both", "filter"])
def test_nothing_is_executed(scene: Scene, role: ConfinedRole, stages: Stages) -> None:
    """No program, not even the interpreter, and no new process to run one in."""
    outcomes = scene.attack(role, stages)
    names = ["spawn", "fork", "vfork", "execveat", "exec /bin/true", f"exec {sys.executable}"]
    assert refused(outcomes, names) == {}
    assert "executed" not in outcomes
    assert outcomes["fork by libc"] == ("done" if role == "compiler" else "EPERM")


@roles
@pytest.mark.parametrize("stages", ["launcher", "landlock"])
def test_the_launcher_alone_lets_only_the_interpreter_run(scene: Scene, role: ConfinedRole, stages: Stages) -> None:
    """Between the stages Landlock refuses other programs: the system's, and what a process may read or has written itself."""
    outcomes = scene.attack(role, stages)
    own = [name for name in outcomes if name.startswith("execute ")]
    assert refused(outcomes, ["exec /bin/true", "spawn", *own]) == {}
    assert len(own) == len(OWN_FILES[role]) + len(OWN_FOLDERS[role]) + 1


ON_OTHERS = ["unlink", "rmdir", "rename", "link", "mkdir"]
SPECIAL = ("symlink ", "fifo ", "device elsewhere", "device in ", "unix socket ")


@control("3.1.5", "3.3.8", "AC-6", "AU-9")
@roles
@pytest.mark.parametrize("stages", ["both", "launcher", "landlock"])
def test_landlock_alone_bounds_what_is_done_to_files(scene: Scene, role: ConfinedRole, stages: Stages) -> None:
    """What is another's is not removed, moved, linked, cut short or listed; own folders take regular files and nothing else."""
    outcomes = scene.attack(role, stages)
    special = [name for name in outcomes if name.startswith((*SPECIAL, "link into ", "move into "))]
    assert len(special) == 4 + 6 * len(OWN_FOLDERS[role])
    assert refused(outcomes, [*ON_OTHERS, *special, "truncate", "list state", "device ioctl"]) == {}
    if stages == "landlock":
        assert [outcomes["list /tmp"], outcomes["list /run"]] == [["EACCES"], ["EACCES"]]
        assert refused(outcomes, ["abstract", "datagram pair", "bind"]) == {}


@control("3.4.6", "CM-7", "SC-39")
@roles
def test_the_filter_alone_lets_only_those_who_write_change_files(scene: Scene, role: ConfinedRole) -> None:
    """And nobody make links to elsewhere, pipes, devices or sockets with a name."""
    outcomes = scene.attack(role, "filter")
    special = [name for name in outcomes if name.startswith(SPECIAL)]
    assert refused(outcomes, special) == {}
    if not OWN_FOLDERS[role]:
        assert refused(outcomes, ON_OTHERS) == {}


@control("SC-3", "SC-39", "SI-16")
@roles
@pytest.mark.parametrize("stages", ["both", "launcher", "filter", "landlock"])
def test_a_sibling_is_out_of_reach(scene: Scene, role: ConfinedRole, stages: Stages) -> None:
    """A process of the same user is not read, traced or signalled, nor is the supervisor; one's own signals work."""
    outcomes = scene.attack(role, stages)
    assert refused(outcomes, ["attach", "signal", "signal supervisor", "tkill"]) == {}
    if stages != "filter":
        assert refused(outcomes, ["sibling's memory", "sibling's environment"]) == {}
    if stages in ("both", "filter"):
        names = [
            "limits of sibling",
            "affinity of sibling",
            "signals by F_SETOWN",
            "process_vm_readv",
            "process_vm_writev",
        ]
        assert refused(outcomes, [*names, "pidfd_open", "pidfd_getfd", "kcmp", "rt_sigqueueinfo", "dumpable"]) == {}
    assert outcomes["signal own"] == "done"


@control("3.4.6", "CM-7", "CM-7(2)", "SC-39", "SI-16")
@roles
@pytest.mark.parametrize("stages", ["both", "filter"])
def test_the_kernels_dangerous_calls_are_refused(scene: Scene, role: ConfinedRole, stages: Stages) -> None:
    """Mounts, namespaces, modules, bpf, io_uring and the like do not reach the kernel at all."""
    outcomes = scene.attack(role, stages)
    assert refused(outcomes, DANGEROUS) == {}
    assert refused(outcomes, [] if role == "engine" else ["memfd_create"]) == {}
    assert refused(outcomes, [] if role in ACCEPTS else ["listen", "accept4"]) == {}
    assert refused(outcomes, [name for name in outcomes if name.startswith("open up ")]) == {}
    assert (outcomes["clone3"], outcomes["later"]) == ("ENOSYS", "ENOSYS")


VARIANTS: dict[str, tuple[ConfinedRole, dict[str, Any], set[str]]] = {
    "engine with a GPU": ("engine", {"uses_gpu": True}, set()),
    "authority with a provider": ("authority", {"upstream_ports": ("witness",)}, {"witness"}),
    "policy with a database server": ("policy", {"database_port": "other"}, {"other"}),
}


@control("3.13.6", "AC-20", "SC-7(5)", "SC-39")
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_a_configuration_opens_opens_nothing_else(scene: Scene, variant: str) -> None:
    """A GPU, a provider, a database server: one port more at most, and nothing besides."""
    role, changes, expected = VARIANTS[variant]
    ports = scene.ports
    places = {
        key: tuple(ports[name] for name in value) if type(value) is tuple else ports.get(value, value)
        for key, value in changes.items()
    }
    outcomes = scene.attack_on(role, probe_platform(), filtered=True, **places)
    assert outcomes["failed"] == []
    assert {name for name in ports if outcomes[f"connect {name}"] == "done"} == expected
    own = {f"read {scene.state / file}" for file in OWN_FILES[role]}
    own |= {f"write {scene.state / folder / 'new'}" for folder in OWN_FOLDERS[role]}
    tried = {name for name in outcomes if name.startswith(("read ", "write "))}
    assert refused(outcomes, sorted(tried - own)) == {}
    names = ["spawn", "fork", "vfork", "fork by libc", "execveat", "exec /bin/true", f"exec {sys.executable}"]
    reach = ["attach", "signal", "signal supervisor", "tkill", "sibling's memory"]
    assert refused(outcomes, [*names, *reach, *ON_OTHERS, "process_vm_readv", "pidfd_open", "dumpable"]) == {}
    assert refused(outcomes, [name for name in DANGEROUS if name != "symlink" or not places.get("uses_gpu")]) == {}
    # In a network of its own there is nobody by that name.
    assert {outcomes["abstract"], outcomes["datagram pair"]} <= REFUSED | {"ECONNREFUSED"}
    assert refused(outcomes, ["early thread", "symlink elsewhere", "unix socket elsewhere"]) == {}


@roles
def test_the_work_of_a_role_still_goes_on(scene: Scene, role: ConfinedRole) -> None:
    """Threads start, modules are imported late."""
    outcomes = scene.attack(role)
    assert (outcomes["thread"], outcomes["late import"]) == ("done", "done")


@control("3.13.1", "SC-7", "SC-7(21)")
@roles
def test_the_network_is_empty_where_none_is_needed(scene: Scene, role: ConfinedRole) -> None:
    """Whoever neither connects nor listens is in a network namespace of its own."""
    outcomes = scene.attack(role)
    if probe_platform().no_empty_network:
        pytest.skip(f"no network namespaces here: {probe_platform().no_empty_network}")
    own = os.readlink("/proc/self/ns/net")
    assert (outcomes["network"] != own) == (role in WITHOUT_NETWORK)
    assert ("an empty network" in outcomes["applied"]) == (role in WITHOUT_NETWORK)


@control("SC-3", "SC-39", "SI-16")
@roles
def test_the_private_root_alone_shows_nothing_of_the_host(scene: Scene, role: ConfinedRole) -> None:
    """No other process in /proc, no state to list, no sockets in /run, an empty /tmp; and that cannot be taken back."""
    outcomes = scene.attack_if_possible(role, "mounts")
    assert "a file system of its own" in outcomes["applied"]
    assert refused(outcomes, ["sibling's memory", "sibling's environment", "chmod", "truncate", "symlink"]) == {}
    assert outcomes["list /proc"] == []
    assert set(outcomes["list /tmp"]) <= ways_in_tmp(scene.base, ROOT, Path(sys.prefix))
    assert outcomes["list /run"] == []
    assert refused(outcomes, ["remount", "behind the root"]) == {}


def ways_in_tmp(*places: Path) -> set[str]:
    """The first names below /tmp on the way to what a process may read, where it lies there."""
    return {place.relative_to("/tmp").parts[0] for place in places if place.is_relative_to("/tmp")}


def test_nothing_was_changed(scene: Scene) -> None:
    """After all the attacks, what they aimed at is as it was, and the sibling lives."""
    for role in CONFINED_ROLES:
        scene.attack(role)
    assert (scene.state / "lock").read_bytes() == b"secret"
    assert not os.path.lexists(scene.state / "link")
    assert scene.sibling.poll() is None


@pytest.mark.parametrize("abi", [2, 3, 4, 5])
@pytest.mark.parametrize("role", ["gateway", "auditor"])
def test_an_older_landlock_confines_as_far_as_it_goes(scene: Scene, role: ConfinedRole, abi: int) -> None:
    """Debian 12 has about ABI 2, Ubuntu 24.04 about 4: files always, TCP ports from 4 on; signals are the filter's then."""
    outcomes = scene.attack_on(role, WITHOUT_ANYTHING._replace(landlock_abi=abi), filtered=True)
    own = [f"read {scene.state / file}" for file in OWN_FILES[role]]
    others = [name for name in outcomes if name.startswith("read ") and name not in own]
    assert outcomes["failed"] == []
    assert ("TCP ports" in outcomes["applied"], "signals" in outcomes["applied"]) == (abi >= 4, False)
    assert {outcomes[name] for name in own} == {"done"}
    assert refused(outcomes, [*others, "signal", "truncate", "unix", "abstract", "udp"]) == {}
    if role == "gateway":
        assert (outcomes["connect other"] == "done") == (abi < 4)


def test_the_first_landlock_still_confines_what_writes_nothing(scene: Scene) -> None:
    """ABI 1 knows no moving between folders, so only processes that write are left without it."""
    first = WITHOUT_ANYTHING._replace(landlock_abi=1)
    engine, auditor = (scene.attack_on(role, first, filtered=True) for role in ("engine", "auditor"))
    assert ("files" in engine["applied"], "files" in auditor["applied"]) == (True, False)
    assert engine[f"read {scene.state / 'audit/log.key'}"] in REFUSED


@pytest.fixture(scope="module")
def owned() -> Iterator[Scene]:
    """A scene in which each file belongs to the user of its role; the sibling is a process of the auditor's user."""
    if reason := probe_platform(DEFAULT_FIRST_UID).no_own_users:
        pytest.skip(f"no users of their own here: {reason}")
    base = Path(tempfile.mkdtemp(prefix="casemate-owned-"))
    base.chmod(0o755)
    made = Scene("root", base)
    settle(made.state, lambda path: find_owner(path, DEFAULT_FIRST_UID))
    for path in (
        made.model,
        made.model / "config.json",
        made.state / "witnesses.pem",
    ):  # The operator's, for all to read.
        path.chmod(0o755)
    made.sibling.kill()
    made.sibling.wait()
    auditor = find_user("auditor", DEFAULT_FIRST_UID)
    made.sibling = subprocess.Popen(["/bin/sleep", "1000"], user=auditor.uid, group=auditor.gid, extra_groups=[])
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(base)


@control("3.1.5", "3.3.8", "AC-6", "AU-9", "SC-3", "SC-39")
@roles
def test_file_permissions_alone_keep_the_roles_apart(owned: Scene, role: ConfinedRole) -> None:
    """No Landlock, no private root, no filter: only the user. What others hold is not read or written, nor are they signalled."""
    user = find_user(role, DEFAULT_FIRST_UID)
    outcomes = owned.attack_on(role, WITHOUT_ANYTHING._replace(has_filter=False), filtered=False, user=user)
    assert outcomes["failed"] == []
    assert outcomes["status"]["Uid"].split() == [str(user.uid)] * 4
    assert outcomes["status"]["Gid"].split() == [str(user.gid)] * 4
    assert outcomes["status"]["Groups"].split() == [str(group) for group in user.groups]
    assert {outcomes["status"][name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd")} == {"0" * 16}
    own = {f"read {owned.state / file}" for file in OWN_FILES[role]}
    own |= {f"write {owned.state / folder / 'new'}" for folder in OWN_FOLDERS[role]}
    everybodys = {"read /etc/passwd", f"read {owned.outside}", f"read {BESIDE_PACKAGES}", "write /tmp/new"}
    everybodys |= {f"read {owned.state / name}" for name in ("model/config.json", "witnesses.pem")}
    assert {name: outcomes[name] for name in own if outcomes[name] != "done"} == {}
    tried = {name for name in outcomes if name.startswith(("read ", "write "))}
    assert refused(outcomes, sorted(tried - own - everybodys)) == {}
    assert refused(outcomes, ["become root", "become another", "join a group", "list state"]) == {}
    if role != "auditor":
        names = ["attach", "kill", "signal", "sibling's memory", "sibling's environment", "limits of sibling"]
        assert refused(outcomes, names) == {}


@roles
def test_a_role_of_its_own_user_does_its_work_under_everything(owned: Scene, role: ConfinedRole) -> None:
    """All mechanisms at once: its own files are there, nothing failed, and no other user can be had."""
    platform = probe_platform(DEFAULT_FIRST_UID)
    outcomes = owned.attack_on(role, platform, filtered=True, user=find_user(role, DEFAULT_FIRST_UID))
    assert outcomes["failed"] == []
    assert "a user of its own" in outcomes["applied"]
    assert {outcomes[f"read {owned.state / file}"] for file in OWN_FILES[role]} == {"done"}
    assert refused(outcomes, ["become root", "become another", "join a group"]) == {}
