"""The life of a host: a bundle is built, carried to an empty folder, installed, serves, is upgraded, and goes back.

Nothing but the commands of docs/operations.md; the release's software is what runs, from its slot.
"""

import contextlib
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import psutil
import pytest

from appliance.demo.client import ApplianceClient, Credentials
from tests.support.appliance import DEMO_MODEL, ROOT, Appliance
from tests.support.commands import try_casemate
from tests.support.controls import control
from tests.support.stewardship import Holder, Stewardship, make_root

PACKAGES = ("appliance", "runtime", "security", "audit", "compliance")
START = """\
import json, os, subprocess, sys
slot = os.path.realpath(os.path.join({host!r}, "current"))
environment = dict(os.environ, PYTHONPATH=os.path.join(slot, "software"), PYTHONSAFEPATH="1", PYTHONDONTWRITEBYTECODE="1")
command = [sys.executable, "-m", "appliance.cli.main", "serve", "--config", {config!r}]
log = open({log!r}, "ab")
process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", env=environment, start_new_session=True)
open({pid!r}, "w").write(str(process.pid))
"""
STOP = """\
import os, signal, sys, time
try:
    pid = int(open({pid!r}).read())
    os.kill(pid, signal.SIGTERM)
    for _ in range(600):
        if open(f"/proc/{{pid}}/stat").read().rsplit(")", 1)[1].split()[0] == "Z":
            break
        time.sleep(0.1)
    else:
        sys.exit(1)
except (FileNotFoundError, ProcessLookupError):
    pass
"""


class Site:
    """A folder with a vendor, a courier's disk and an empty host."""

    def __init__(self, place: Path) -> None:
        self.place, self.host = place, place / "host"
        self.vendor, self.people = Holder("vendor"), Stewardship()
        self.appliance = Appliance(place)
        self.pid_file = place / "pid"
        for holder in (self.vendor, *self.people.people.values()):
            holder.write(place / "keys")
        for name, data in (
            ("root.json", make_root(self.vendor)),
            ("customer-root.json", make_root(self.people.root_holder)),
        ):
            (place / name).write_bytes(data)
        (place / "roles.dsse").write_bytes(self.people.signed_roles())
        self.write_scripts()

    def write_scripts(self) -> None:
        values = {name: str(self.place / name) for name in ("host", "pid")}
        paths = {**values, "log": str(self.place / "log"), "config": str(self.place / "host.toml")}
        (self.place / "start.py").write_text(START.format(**paths))
        (self.place / "stop.py").write_text(STOP.format(**paths))
        self.appliance.model = DEMO_MODEL
        self.appliance.write_config()
        text = self.appliance.config_file.read_text().replace('state_dir = "state"', 'state_dir = "host/state"')
        (self.place / "host.toml").write_text(text)

    def casemate(self, *words: str, fails: bool = False) -> str:
        with contextlib.chdir(self.place):
            status, printed = try_casemate(*words)
        assert (status != 0) == fails, printed + self.log()
        return printed

    def switch(self, *words: str) -> str:
        start, stop = (shlex.join([sys.executable, str(self.place / f"{name}.py")]) for name in ("start", "stop"))
        url = f"https://127.0.0.1:{self.appliance.gateway_port}/ready"
        return self.casemate(
            *words, "--host", "host", "--start", start, "--stop", stop, "--ready-url", url, "--ready-timeout", "120"
        )

    def build(self, name: str, release: str, *more: str) -> None:
        """A release of the software at hand, marked with its version."""
        parts = self.place / "parts"
        shutil.rmtree(parts, ignore_errors=True)
        for package in PACKAGES:
            ignore = shutil.ignore_patterns("__pycache__", "model", "model.safetensors")
            shutil.copytree(ROOT / package, parts / package, ignore=ignore)
        (parts / "VERSION").write_text(release)
        words = (
            "--root",
            "root.json",
            "--release",
            release,
            "--component",
            "software=parts",
            "--key",
            "keys/vendor.pem",
        )
        self.casemate("bundle", "build", name, *words, *more)

    def ask(self, name: str) -> int:
        """One completion for a new client; gives its tokens."""
        state = self.host / "state"
        created = self.casemate("client", "create", name, "--state", str(state), "--json")
        document = json.loads(created)
        authority = f"https://127.0.0.1:{self.appliance.authority_port}"
        client = ApplianceClient(self.appliance.url, authority, state / "tls" / "ca.pem")
        token = client.get_token(Credentials(document["client_id"], document["client_secret"]), self.appliance.url)
        http_client = openai.DefaultHttpxClient(verify=client.tls)
        with openai.OpenAI(
            base_url=f"{self.appliance.url}/v1", api_key=token["access_token"], http_client=http_client
        ) as sdk:
            usage = sdk.completions.create(model="casemate-demo", prompt="Hello", max_tokens=2).usage
        assert usage is not None
        return usage.completion_tokens

    def running_release(self) -> str:
        """The version of the software that the supervisor has loaded."""
        environment = psutil.Process(int(self.pid_file.read_text())).environ()
        return (Path(environment["PYTHONPATH"]) / "VERSION").read_text()

    def log(self) -> str:
        return (self.place / "log").read_text()[-4000:] if (self.place / "log").exists() else ""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """An empty host; whatever runs on it is stopped afterwards."""
    site = Site(tmp_path)
    yield site
    subprocess.run([sys.executable, str(tmp_path / "stop.py")], timeout=90, check=False)


@control("3.4.3", "3.11.3", "3.14.1", "CM-2(3)", "CM-3", "CM-8(1)", "SI-2", "SR-9(1)")
def test_host_from_empty_to_rolled_back(site: Site) -> None:
    """Build, carry, believe, verify, install, serve, upgrade by a delta, go back with two operators' leave."""
    site.build("release-1", "1.0.0")
    shutil.copytree(site.place / "release-1", site.place / "disk")
    words = []
    for option, name in (("--root", "root.json"), ("--customer-root", "customer-root.json")):
        digest = hashlib.sha256((site.place / name).read_bytes()).hexdigest()
        words += [option, name, f"{option}-sha256", digest]
    site.casemate("init", "--state", "host/state", *words, "--roles", "roles.dsse")
    assert "verified: release 1.0.0" in site.casemate("bundle", "verify", "disk", "--host", "host")
    assert "installed in slot a" in site.casemate("bundle", "install", "disk", "--host", "host")
    assert "runs       release 1.0.0" in site.switch("upgrade")
    assert site.running_release() == "1.0.0"
    assert site.ask("of-1.0.0") == 2

    site.build("release-2", "1.1.0", "--previous", "release-1", "--delta")
    carried = [path for path in (site.place / "release-2/targets").rglob("*") if path.is_file()]
    assert len(carried) == 2  # VERSION and release.json: a delta carries what changed.
    site.casemate("bundle", "install", "release-2", "--host", "host")
    site.switch("upgrade")
    assert site.running_release() == "1.1.0"
    assert site.ask("of-1.1.0") == 2

    assert "leave is missing" in site.casemate("rollback", "--host", "host", fails=True)
    for name in ("olga", "omar"):
        site.casemate("rollback", "approve", "--host", "host", "--key", f"keys/{name}.pem", "-o", "leave.dsse")
    assert "by leave of olga and omar" in site.switch("rollback", "--leave", "leave.dsse")
    assert site.running_release() == "1.0.0"
    assert site.ask("after") == 2
    clients = site.casemate("client", "list", "--state", "host/state")
    assert "of-1.0.0" in clients
    assert "of-1.1.0" not in clients  # Definitions go back with the release that can read them.
    status = json.loads(site.casemate("status", "--host", "host", "--json"))
    assert (status["current"], status["slots"]["b"]["release"]) == ("a", "1.1.0")
    assert os.listdir(site.host / "state" / "audit")
