"""The Nix flake: it evaluates offline against a stub of nixpkgs. Nothing is built, and the virtual machine was never run."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
STUB = ROOT / "tests/support/nixpkgs_stub"
MODULE = """
let
  stub = (builtins.getFlake "path:@STUB@").legacyPackages.x86_64-linux;
  package = stub.callPackage @PLACE@/nix/package.nix { };
  module = import @PLACE@/nix/module.nix { casemate = package; };
  evaluated = module {
    lib = stub.lib;
    pkgs = stub;
    config.services.casemate = { enable = true; inherit package; settings = { mode = "production"; }; };
  };
in evaluated.config.systemd.services.casemate.serviceConfig
"""

pytestmark = pytest.mark.skipif(shutil.which("nix") is None, reason="nix is not installed")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the flake reads of the repository, and a configuration of Nix that needs no daemon."""
    place = tmp_path_factory.mktemp("nix")
    shutil.copytree(ROOT / "nix", place / "repo/nix")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place / "repo")
    shutil.copytree(STUB, place / "stub")
    for words in (("init", "-q"), ("add", "."), ("-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "x")):
        subprocess.run(["git", *words], cwd=place / "repo", check=True, capture_output=True)
    (place / "conf").mkdir()
    (place / "conf/nix.conf").write_text(
        "build-users-group =\nsandbox = false\nexperimental-features = nix-command flakes\n"
    )
    return place


def run_nix(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Nix with a store of its own, offline."""
    folders = {
        "NIX_CONF_DIR": "conf",
        "NIX_STATE_DIR": "state",
        "NIX_LOG_DIR": "log",
        "HOME": "home",
        "XDG_CACHE_HOME": "cache",
    }
    environment = {"PATH": os.environ["PATH"], **{name: str(place / folder) for name, folder in folders.items()}}
    store = ["--store", str(place / "store")]
    return subprocess.run(
        ["nix", *words, "--offline", *store], env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_flake_evaluates_offline_against_a_stub(place: Path) -> None:
    """Package, image, module and the test of it: every output has the shape that Nix expects."""
    words = ("flake", "check", f"git+file://{place}/repo?dir=nix", "--no-build", "--no-write-lock-file")
    done = run_nix(place, *words, "--override-input", "nixpkgs", f"path:{place}/stub")
    assert done.returncode == 0, done.stderr


def test_lock_file_pins_the_input_that_the_flake_names() -> None:
    """By commit and by the digest of its content."""
    lock = json.loads((ROOT / "nix/flake.lock").read_text())
    locked = lock["nodes"]["nixpkgs"]["locked"]
    assert locked["rev"] in (ROOT / "nix/flake.nix").read_text()
    assert locked["narHash"].startswith("sha256-")


def test_module_confines_the_service(place: Path) -> None:
    """The same protections as the systemd unit in deploy/, evaluated and not only read."""
    expression = MODULE.replace("@PLACE@", str(place / "repo")).replace("@STUB@", str(place / "stub"))
    done = run_nix(place, "eval", "--json", "--impure", "--expr", expression)
    assert done.returncode == 0, done.stderr
    service: dict[str, Any] = json.loads(done.stdout)
    assert service["NoNewPrivileges"] is True
    assert service["ProtectSystem"] == "strict"
    assert "/bin/casemate serve --config" in service["ExecStart"]
