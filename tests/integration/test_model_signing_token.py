"""Signing with a key that never leaves its PKCS#11 token, with SoftHSM as the token.

SoftHSM reads its configuration once in a process, so each command runs in one of its own.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.security.model_signing.conftest import write_files

ROOT = Path(__file__).parents[2]
UTIL = shutil.which("softhsm2-util")
MODULES = [Path(folder) / "softhsm" / "libsofthsm2.so" for folder in ("/usr/lib", "/usr/lib64", "/usr/local/lib")]
MODULE = next((path for path in MODULES if path.exists()), None)
PIN = "8421-token-pin"
ON_CURVES = [(curve, "object=release") for curve in ("P-256", "P-384", "P-521")]


def has_python_pkcs11() -> bool:
    """Whether the extra is installed; asked without loading native code into the tests' process."""
    import importlib.util

    return importlib.util.find_spec("pkcs11") is not None


pytestmark = [
    pytest.mark.skipif(UTIL is None or MODULE is None, reason="SoftHSM is not installed (Debian: softhsm2)"),
    pytest.mark.skipif(not has_python_pkcs11(), reason="python-pkcs11 is not installed (the extra pkcs11)"),
]


class Token:
    """A token of its own in a test's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tokens").mkdir(parents=True)
        (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder}/tokens\nlog.level = ERROR\n")
        self.environment = {**os.environ, "SOFTHSM2_CONF": str(folder / "softhsm2.conf")}
        self.pin = folder / "pin"
        self.pin.write_text(f"{PIN}\n")
        self.pin.chmod(0o600)
        self.run(UTIL, "--init-token", "--free", "--label", "models", "--pin", PIN, "--so-pin", "12345678")

    def run(self, *words: object) -> subprocess.CompletedProcess[bytes]:
        """Run a command that must succeed."""
        return subprocess.run([str(word) for word in words], env=self.environment, check=True, capture_output=True)

    def generate(self, label: str, curve: str) -> Path:
        """Put a new key into the token, and return its public half as PEM."""
        private, public = self.folder / f"{label}.key", self.folder / f"{label}.pem"
        self.run("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", f"ec_paramgen_curve:{curve}", "-out", private)
        self.run("openssl", "pkey", "-in", private, "-pubout", "-out", public)
        self.run(
            UTIL, "--import", private, "--token", "models", "--pin", PIN, "--label", label, "--id", label.encode().hex()
        )
        private.unlink()
        return public

    def uri(self, key: str) -> str:
        """The URI of a key of this token."""
        return f"pkcs11:token=models;{key}?module-path={MODULE}&pin-source={self.pin}"

    def casemate(self, *words: object) -> subprocess.CompletedProcess[str]:
        """`casemate model …`."""
        command = [sys.executable, "-m", "appliance.cli.main", "model", *map(str, words)]
        return subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            stdin=subprocess.DEVNULL,
        )


@pytest.fixture
def token(tmp_path: Path) -> Token:
    """An initialized token."""
    return Token(tmp_path / "token")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder."""
    return write_files(tmp_path / "model", {"config.json": b"{}", "model.safetensors": b"weights"})


@pytest.mark.parametrize(
    ("curve", "key"), [*ON_CURVES, ("P-256", "id=release"), ("P-256", "object=release;id=release")]
)
def test_key_in_a_token_signs(token: Token, model: Path, curve: str, key: str) -> None:
    """Found by label, by id or by both, on each curve; the signature is like that of a key in a file."""
    public = token.generate("release", curve)
    done = token.casemate("sign", model, "--key", token.uri(key))
    assert done.returncode == 0, done.stderr
    done = token.casemate("verify", model, "--signature", model / "model.sig", "--key", public)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda token: token.uri("object=another"), "token models"),
        (lambda token: token.uri("object=release").replace("models", "other"), "token other"),
        (lambda token: token.uri("object=release").replace("libsofthsm2", "nowhere"), "token models"),
        (lambda token: token.uri("object=release").split("&")[0], "no terminal to ask at"),
    ],
    ids=["key", "token", "module", "no PIN"],
)
def test_token_that_cannot_be_used_is_one_line(token: Token, model: Path, change: object, message: str) -> None:
    """A key, token or module that is not there, and a PIN that nobody can be asked for; nothing is written."""
    token.generate("release", "P-256")
    done = token.casemate("sign", model, "--key", change(token))  # type: ignore[operator]
    assert done.returncode != 0
    assert done.stderr.startswith("casemate: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert not (model / "model.sig").exists()


def test_wrong_pin_is_refused_and_not_shown(token: Token, model: Path) -> None:
    """The message names the token; neither PIN is in it."""
    token.generate("release", "P-256")
    token.pin.write_text("0000-wrong")
    done = token.casemate("sign", model, "--key", token.uri("object=release"))
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert "token models" in done.stderr
    assert "wrong" not in done.stderr
    assert PIN not in done.stderr


def test_pin_file_that_others_can_read_is_refused(token: Token, model: Path) -> None:
    """It is a key like any other."""
    token.generate("release", "P-256")
    token.pin.chmod(0o644)
    done = token.casemate("sign", model, "--key", token.uri("object=release"))
    assert done.returncode != 0
    assert "open to others" in done.stderr
