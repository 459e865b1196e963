"""A confined engine reads its bundle and runs a library from memory, under the real launcher and filter."""

import ctypes.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.kernels.bundle import write_bundle
from runtime.kernels.manifest import build_manifest
from security.sandbox import landlock
from security.sandbox.launch import Plan, wrap
from security.sandbox.platform import probe_platform
from security.sandbox.profiles import Code, Places, build_profile
from tests.support.frozen_bundles import SOURCES, VERSIONS, library_entry

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("confined_bundle.py")
PACKAGES = tuple(ROOT / name for name in ("appliance", "compliance", "runtime", "security", "audit"))


def read_mathematics() -> bytes:
    """The C library's shared object of `cos`, which any system has."""
    with open("/proc/self/maps") as maps:
        mapped = {line.split()[-1] for line in maps if "libm.so" in line or "libm-" in line}
    if not mapped:
        ctypes.CDLL(ctypes.util.find_library("m"))
        return read_mathematics()
    return Path(min(mapped)).read_bytes()


@pytest.mark.skipif(landlock.probe_abi() < landlock.ABI_SCOPE, reason="needs Landlock ABI 6 (Linux 6.12)")
def test_a_confined_engine_loads_its_libraries_from_memory(tmp_path: Path) -> None:
    """Two of them, as descriptors and paths of two; the folder beside the bundle stays closed."""
    library = read_mathematics()
    names = ["fa2_bf16_bf16_d64", "fa3_bf16_bf16_d64"]
    contents = [library, library + b"\0"]
    entries = [library_entry(name, content) for name, content in zip(names, contents, strict=True)]
    manifest = build_manifest("sm_90a", SOURCES, VERSIONS, (), entries)
    write_bundle(
        tmp_path / "kernels",
        manifest,
        {entry.sha256: content for entry, content in zip(entries, contents, strict=True)},
    )
    (tmp_path / "other").mkdir()
    places = Places(
        state=tmp_path / "state",
        models=(),
        definitions=tmp_path / "state",
        credentials_key=tmp_path / "state",
        tls_files=(),
        authority_port=0,
        database_port=0,
        issuer_files=(),
        issuer_ports=(),
        uses_gpu=True,
        kernels=(tmp_path / "kernels",),
    )
    control, theirs = socket.socketpair()
    with control, theirs:
        plan = Plan(
            profile=build_profile("engine", places, Code(PACKAGES, (str(SCRIPT.parent),))),
            kept_fds=(theirs.fileno(),),
            platform=probe_platform(),
            strict=False,
        )
        command = [
            sys.executable,
            str(SCRIPT),
            "--bundle",
            str(tmp_path / "kernels"),
            "--control-fd",
            str(plan.kept_fds[0]),
        ]
        run = subprocess.run(
            wrap(command, plan), capture_output=True, text=True, timeout=120, pass_fds=plan.kept_fds,
            env={"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1", "PATH": os.defpath},
        )  # fmt: skip
    assert run.returncode == 0, run.stderr
    outcome = json.loads(run.stdout)
    assert outcome["digest"] == manifest.digest
    assert outcome["called"] == [1.0, 1.0]
    assert outcome["other"] == "refused"
