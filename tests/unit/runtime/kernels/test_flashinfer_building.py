"""FlashInfer's build: what it wants before it starts, and what it says when it fails."""

import importlib.util
import shutil
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from runtime.attention.flashinfer.libraries import LibraryName
from runtime.errors import EngineMisconfigured
from runtime.kernels import flashinfer_building
from runtime.kernels.flashinfer_building import FlashInferCompiler, Toolchain

NAME = LibraryName("fa3", "bf16", "bf16", 128, windowed=False)

pytestmark = pytest.mark.skipif(
    not all(shutil.which(tool) for tool in ("g++", "ninja", "strip")), reason="needs g++, ninja and strip"
)


@pytest.fixture
def toolchain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toolchain:
    """An nvcc that is never run, and a FlashInfer that is only said to be there."""
    (tmp_path / "cuda" / "bin").mkdir(parents=True)
    (tmp_path / "cuda" / "bin" / "nvcc").touch()
    monkeypatch.setattr(flashinfer_building, "version", lambda name: "0.6.14")
    return Toolchain(tmp_path / "cuda", tmp_path / "build")


def test_what_is_not_installed_is_named(toolchain: Toolchain, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package, the compiler where it was looked for, a tool."""
    with pytest.raises(EngineMisconfigured, match="nvcc: expected it at /nowhere/bin/nvcc"):
        FlashInferCompiler("sm_90a", Toolchain(Path("/nowhere"), toolchain.build_folder))
    monkeypatch.setattr(flashinfer_building.shutil, "which", lambda tool, path: None if tool == "ninja" else tool)
    with pytest.raises(EngineMisconfigured, match="compiled with ninja"):
        FlashInferCompiler("sm_90a", toolchain)

    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(flashinfer_building, "version", absent)
    with pytest.raises(EngineMisconfigured, match="flashinfer-python, which is not installed"):
        FlashInferCompiler("sm_90a", toolchain)


def test_a_folder_that_others_can_write_to_is_refused(toolchain: Toolchain) -> None:
    """They would choose what is compiled."""
    toolchain.build_folder.mkdir()
    toolchain.build_folder.chmod(0o777)
    with pytest.raises(EngineMisconfigured, match="nobody else can write to"):
        FlashInferCompiler("sm_90a", toolchain).compile(NAME)
    toolchain.build_folder.rmdir()
    toolchain.build_folder.symlink_to("/")
    with pytest.raises(EngineMisconfigured, match="nobody else can write to"):
        FlashInferCompiler("sm_90a", toolchain).compile(NAME)


@pytest.mark.skipif(importlib.util.find_spec("flashinfer") is not None, reason="FlashInfer is here, and would compile")
def test_a_build_that_fails_says_what_the_compiler_said(toolchain: Toolchain) -> None:
    """The end of it, with the library's name; the folder was made for this user alone."""
    with pytest.raises(EngineMisconfigured, match=r"fa3_bf16_bf16_d128 did not compile:\n(.|\n)*flashinfer"):
        FlashInferCompiler("sm_90a", toolchain).compile(NAME)
    assert toolchain.build_folder.stat().st_mode & 0o777 == 0o700
