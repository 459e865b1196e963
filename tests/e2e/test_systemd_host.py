"""The shipped units under a real systemd: first start, watchdog, failing upgrade, upgrade, rollback, users of their own, devices.

The commands are those of docs/operations.md. The release's `software` starts the code at hand instead of holding wheels, which
`make software` needs an index for; everything else is a release as any other.
"""

import hashlib
import json
import re
import shutil
import sysconfig
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from security.sandbox.users import DEFAULT_FIRST_UID, find_user
from tests.support.booted_host import BootedHost, why_not_bootable
from tests.support.controls import control
from tests.support.stewardship import Holder, Stewardship, make_root

ROOT = Path(__file__).parents[2]
PACKAGES = Path(sysconfig.get_path("purelib"))
CASEMATE = """\
#!/bin/sh
exec env PYTHONPATH=/opt/source:/opt/source/{packages} PYTHONSAFEPATH=1 PYTHONNOUSERSITE=1 PYTHONDONTWRITEBYTECODE=1 \\
    {python} -S -m appliance.cli.main "$@"
"""
CONFIGURATION = """\
mode = "production"
state_dir = "/var/lib/casemate/state"
waivers = ["signed_models", "two_person_grants", "witness", "own_certificates"]
[[engines]]
model_path = "/opt/source/appliance/demo/model"
served_model_name = "demo"
"""
ASK = """\
import json, sys
from pathlib import Path
from appliance.demo.client import ApplianceClient, Credentials
import openai
created = json.loads(sys.argv[1])
client = ApplianceClient("https://127.0.0.1:8443", "https://127.0.0.1:8444", Path("/var/lib/casemate/state/tls/ca.pem"))
token = client.get_token(Credentials(created["client_id"], created["client_secret"]), "https://127.0.0.1:8443")
with openai.OpenAI(base_url="https://127.0.0.1:8443/v1", api_key=token["access_token"],
                   http_client=openai.DefaultHttpxClient(verify=client.tls)) as sdk:
    print(sdk.completions.create(model="demo", prompt="Hello", max_tokens=2).usage.completion_tokens)
"""
OWN = DEFAULT_FIRST_UID


def _why_not() -> str:
    if not PACKAGES.is_relative_to(ROOT):
        return "the environment does not lie in the source's folder"
    return why_not_bootable()


pytestmark = [pytest.mark.long, pytest.mark.skipif(bool(_why_not()), reason=f"a booted host: {_why_not()}")]


class Site:
    """A vendor, a courier's disk, and a host with systemd."""

    def __init__(self, place: Path) -> None:
        self.place, self.carried = place, place / "carried"
        self.vendor, self.people = Holder("vendor"), Stewardship()
        for holder in (self.vendor, *self.people.people.values()):
            holder.write(self.carried / "keys")
        (self.carried / "root.json").write_bytes(make_root(self.vendor))
        (self.carried / "customer-root.json").write_bytes(make_root(self.people.root_holder))
        (self.carried / "roles.dsse").write_bytes(self.people.signed_roles())
        (self.carried / "casemate.toml").write_text(CONFIGURATION)
        (self.carried / "ask.py").write_text(ASK)
        shutil.copytree(self.write_parts("first", "1.0.0"), self.carried / "first")
        (place / "boot").mkdir()
        try:
            self.host = BootedHost(place / "boot", ROOT, self.carried)
        except OSError as error:
            pytest.skip(str(error))

    def write_parts(self, name: str, release: str, *, refuses: bool = False) -> Path:
        """A release's parts."""
        parts = self.place / f"parts-{name}"
        (parts / "software/bin").mkdir(parents=True)
        python = f"python{sysconfig.get_python_version()}"
        text = CASEMATE.format(packages=PACKAGES.relative_to(ROOT), python=python)
        if refuses:
            text = text.replace("exec env", '[ "$1" != serve ] || exit 1\nexec env')
        (parts / "software/bin/casemate").write_text(text)
        (parts / "software/bin/casemate").chmod(0o755)
        (parts / "software/VERSION").write_text(release)
        shutil.copytree(ROOT / "deploy", parts / "deploy")
        return parts

    def casemate(self, words: str, *, user: str = "") -> str:
        """A command with the software of the disk, as root or as somebody else."""
        prefix = f"runuser -u {user} -- " if user else ""
        return self.host.do(f"{prefix}/opt/carried/first/software/bin/casemate {words}")

    def bring(self, name: str, release: str, *, after: str = "", refuses: bool = False) -> None:
        """Build a release, carry it, install it."""
        inside = f"/opt/carried/{name}"
        if not (self.carried / name).exists():
            shutil.copytree(self.write_parts(name, release, refuses=refuses), self.carried / name)
        self.casemate(
            f"bundle build /tmp/{name} --root /opt/carried/root.json --release {release} --key /opt/carried/keys/vendor.pem "
            f"--component software={inside}/software --component deploy={inside}/deploy "
            + (f"--previous /tmp/{after} --delta" if after else "")
        )
        assert f"verified: release {release}" in self.casemate(f"bundle verify /tmp/{name}")
        assert "installed in slot" in self.casemate(f"bundle install /tmp/{name}")

    def properties(self, unit: str = "casemate.service") -> dict[str, str]:
        """What systemd says of a unit."""
        lines = self.host.do(f"systemctl show {unit}").splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def wait_active(self, *, restarts: int) -> None:
        """Until it was started again so often, and runs."""
        self.host.do(
            f"for _ in $(seq 240); do [ $(systemctl show -P NRestarts casemate) -ge {restarts} ] && "
            "systemctl is-active -q casemate && exit 0; sleep 0.5; done; exit 1"
        )

    def ask(self, name: str) -> None:
        """A client is made while it runs, and gets an answer."""
        created = self.casemate(f"client create {name} --state /var/lib/casemate/state --json", user="casemate")
        python = f"/opt/source/.venv/bin/python{sysconfig.get_python_version()}"
        answered = self.host.do(f"PYTHONPATH=/opt/source {python} /opt/carried/ask.py '{created.strip()}'")
        assert answered.strip() == "2"

    def processes(self) -> dict[str, tuple[int, int]]:
        """Process and user of every role."""
        lines = self.host.do("ps -eo pid=,uid=,args= --cols 120").splitlines()
        found = [
            re.match(r"\s*(\d+)\s+(\d+)\s+\S.* -m (?:appliance\.processes|appliance\.cli\.main) (\S+)", line)
            for line in lines
        ]
        return {one[3]: (int(one[1]), int(one[2])) for one in found if one}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """An empty host."""
    site = Site(tmp_path)
    yield site
    site.host.close()


@control("3.4.3", "3.13.4", "CM-3", "SC-39")
def test_life_of_a_host_under_systemd(site: Site) -> None:
    """Each step as an operator does it; production mode, and no waiver for the sandbox or for the users."""
    host = site.host
    digests = {
        name: hashlib.sha256((site.carried / name).read_bytes()).hexdigest()
        for name in ("root.json", "customer-root.json")
    }
    host.do(
        "useradd --system --home-dir /var/lib/casemate --shell /usr/sbin/nologin casemate\n"
        "install -d -m 755 /var/lib/casemate /etc/casemate\n"
        "install -d -m 700 -o casemate -g casemate /var/lib/casemate/state\n"
        "cp /opt/carried/casemate.toml /etc/casemate/"
    )
    site.casemate(
        f"init --state /var/lib/casemate/state --root /opt/carried/root.json --root-sha256 {digests['root.json']} "
        f"--customer-root /opt/carried/customer-root.json --customer-root-sha256 {digests['customer-root.json']} "
        "--roles /opt/carried/roles.dsse",
        user="casemate",
    )
    site.bring("first", "1.0.0")
    owners = host.do("find /var/lib/casemate/state -printf '%u %m %P\\n'")
    assert {line.split()[0] for line in owners.splitlines()} == {"casemate"}  # What root's installation left, too.
    host.do("cp /var/lib/casemate/slots/a/deploy/systemd/*.service /etc/systemd/system/ && systemctl daemon-reload")
    assert "runs       release 1.0.0" in site.casemate("upgrade")
    verify_running(site)
    verify_users(site)
    site.ask("of-1.0.0")
    verify_watchdog(site)
    verify_upgrades(site)
    verify_lender(site)
    verify_devices(site)


def verify_running(site: Site) -> None:
    """systemd was told, and scores what runs."""
    assert site.properties()["StatusText"] == "all processes are ready"
    for unit in ("casemate.service", "casemate-users.service"):
        site.host.do(f"systemd-analyze security --no-pager --threshold=20 {unit}")
        assert site.properties(unit)["ActiveState"] == "active"
    assert "a user of its own" in site.host.journal() or "confined" in site.host.do("journalctl -o cat -u casemate")


def verify_users(site: Site) -> None:
    """Nobody is root, each role is somebody else, and nobody has a capability of the host's."""
    processes = site.processes()
    (casemate,) = {processes[name][1] for name in ("serve", "lend-users")}
    assert 0 < casemate < 1000
    roles = {name: uid for name, (_, uid) in processes.items() if name not in ("serve", "lend-users")}
    assert roles == {name: find_user(name, OWN).uid for name in roles}  # type: ignore[arg-type]
    assert {"gateway", "engine", "auditor", "policy", "authority", "compiler", "reader"} <= set(roles)
    for name in roles:
        status = site.host.do(f"grep -E '^(CapPrm|CapBnd|NoNewPrivs|Seccomp):' /proc/{processes[name][0]}/status")
        assert set(re.findall(r"Cap\w+:\s+(\w+)", status)) == {"0" * 16}, name
        assert "NoNewPrivs:\t1" in status
        assert "Seccomp:\t2" in status
    supervisor, lender = processes["serve"][0], processes["lend-users"][0]
    own = site.host.do(f"readlink /proc/{supervisor}/ns/user /proc/{lender}/ns/user /proc/1/ns/user").split()
    assert own[0] not in own[1:]
    assert own[1] == own[2]
    assert site.host.do(f"awk '{{print $1, $2, $3}}' /proc/{supervisor}/uid_map").splitlines() == [
        f"0 {casemate} 1",
        f"{OWN} {OWN} 32",
    ]
    assert "CapEff:\t00000000000000c0" in site.host.do(f"cat /proc/{lender}/status")
    state = "/var/lib/casemate/state"
    listed = dict(line.split() for line in site.host.do(f"stat -c '%n %u' {state}/*").splitlines())
    assert listed[f"{state}/audit"] == str(find_user("auditor", OWN).uid)
    assert listed[f"{state}/lock"] == str(casemate)


def verify_watchdog(site: Site) -> None:
    """A supervisor that stands still is ended and started again; a crash, too; nobody who works on the host has to come."""
    host = site.host
    host.do(
        "mkdir -p /run/systemd/system/casemate.service.d\n"
        "printf '[Service]\\nWatchdogSec=8\\n' > /run/systemd/system/casemate.service.d/quick.conf\n"
        "systemctl daemon-reload && systemctl restart casemate"
    )
    host.do("kill -STOP $(systemctl show -P MainPID casemate)")
    site.wait_active(restarts=1)
    assert "Watchdog timeout" in host.do("journalctl -o cat -u casemate")
    host.do("kill -KILL $(systemctl show -P MainPID casemate)")
    site.wait_active(restarts=2)
    assert site.properties()["StatusText"] == "all processes are ready"


def verify_upgrades(site: Site) -> None:
    """A release that refuses is taken back; one that starts stays; two operators may go back, and clients go back with it."""
    site.bring("broken", "1.1.0", after="first", refuses=True)
    failed = site.host.run("/opt/carried/first/software/bin/casemate upgrade --ready-timeout 60")
    assert failed.returncode == 1
    status = json.loads(site.casemate("status --json"))
    assert status["slots"][status["current"]]["release"] == "1.0.0"
    site.ask("after-a-failure")
    site.bring("better", "1.2.0", after="broken")
    assert "runs       release 1.2.0" in site.casemate("upgrade")
    site.ask("of-1.2.0")
    for name in ("olga", "omar"):
        site.casemate(f"rollback approve --key /opt/carried/keys/{name}.pem -o /tmp/leave.dsse")
    assert "by leave of olga and omar" in site.casemate("rollback --leave /tmp/leave.dsse")
    site.ask("after")
    clients = site.casemate("client list --state /var/lib/casemate/state", user="casemate")
    assert "of-1.0.0" in clients
    assert "of-1.2.0" not in clients
    assert site.processes()["gateway"][1] == find_user("gateway", OWN).uid


def verify_lender(site: Site) -> None:
    """Without it production refuses, for good and saying why; commands cannot reach what is the roles'."""
    host = site.host
    host.do(
        "systemctl stop casemate casemate-users && mv /etc/systemd/system/casemate-users.service /tmp/ && systemctl daemon-reload"
    )
    command = "/opt/carried/first/software/bin/casemate client list --state /var/lib/casemate/state"
    refused = host.run(f"runuser -u casemate -- {command}")
    assert refused.returncode != 0
    assert host.run("systemctl start casemate").returncode != 0
    properties = site.properties()
    assert (properties["ExecMainStatus"], properties["ActiveState"]) == ("78", "failed")
    assert "no casemate-users.service lends any" in host.journal()
    host.do(
        "mv /tmp/casemate-users.service /etc/systemd/system/ && systemctl daemon-reload\n"
        "systemctl reset-failed casemate && systemctl start casemate"
    )
    site.ask("lent-again")


def verify_devices(site: Site) -> None:
    """A drop-in gives its device and no other: the private /dev stays, and the group may write to it."""
    site.host.do(
        textwrap.dedent("""\
        getent group tss > /dev/null || groupadd --system tss
        mknod -m 660 /dev/tpmrm0 c 1 3 && chgrp tss /dev/tpmrm0
        mknod -m 666 /dev/fuse c 10 229
        mkdir -p /etc/systemd/system/casemate.service.d
        cp /var/lib/casemate/current/deploy/systemd/tpm.conf /etc/systemd/system/casemate.service.d/
        systemctl daemon-reload && systemctl restart casemate
        systemd-analyze security --no-pager --threshold=20 casemate.service
        """)
    )
    inside = f"nsenter --target={site.processes()['serve'][0]} --mount --"
    devices = site.host.do(f"{inside} ls /dev").split()
    assert "tpmrm0" in devices
    assert "fuse" not in devices
    assert "tpmrm0" not in site.host.do(f"nsenter --target={site.processes()['engine'][0]} --mount -- ls /dev").split()
    site.host.do(f"{inside} runuser -u casemate -G tss -- sh -c 'echo x > /dev/tpmrm0'")
