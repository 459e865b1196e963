"""`make setup`, as far as it can be shown without a package index: what it makes of a pip that fails."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

BROKEN = "ReadTimeoutError: HTTPSConnectionPool(host='user:secret@index.example', port=443): Read timed out."
PIP = """\
#!/bin/sh
echo run >> runs
if [ $(wc -l < runs) -le {failures} ]; then echo "{said}"; echo "ERROR: see https://user:secret@index.example"; exit 1; fi
"""


@pytest.fixture
def install(project_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, in an empty folder."""
    spec = importlib.util.spec_from_file_location("install", project_root / "constraints" / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "LOG", tmp_path / "install.log")
    monkeypatch.setattr(module, "PYTHON", tmp_path / "python")
    monkeypatch.setattr(module, "_WAITS_S", (0.0, 0.0))
    return module


def play_pip(folder: Path, failures: int, said: str) -> None:
    """A Python whose pip fails so often."""
    (folder / "python").write_text(PIP.format(failures=failures, said=said))
    (folder / "python").chmod(0o755)


def num_runs(folder: Path) -> int:
    return len((folder / "runs").read_text().splitlines())


def test_a_connection_that_breaks_is_tried_again(install: ModuleType, tmp_path: Path) -> None:
    """A gigabyte comes over networks on which it does not always come at once."""
    play_pip(tmp_path, 2, BROKEN)
    install.install("Installing", Path("pins.txt"), ["x"])
    assert num_runs(tmp_path) == 3


@pytest.mark.parametrize(("said", "expected"), [(BROKEN, 3), ("no matching distribution", 1)])
def test_what_does_not_mend_is_told_without_addresses(
    install: ModuleType, tmp_path: Path, said: str, expected: int
) -> None:
    """After the tries that there are, or at once where another would say the same."""
    play_pip(tmp_path, 9, said)
    with pytest.raises(SystemExit, match="pip failed") as ended:
        install.install("Installing", Path("pins.txt"), ["x"])
    assert "ERROR: see <address>" in str(ended.value)
    assert "secret" not in str(ended.value)
    assert num_runs(tmp_path) == expected
