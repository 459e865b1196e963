"""Libraries from a folder."""

from pathlib import Path

import pytest

from runtime.errors import EngineMisconfigured, KernelMissing
from runtime.kernels.libraries import FolderLibraries


def test_a_library_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The error says which library and where it was looked for."""
    with pytest.raises(KernelMissing, match=r"fa2_x.*fa2_x\.so"):
        FolderLibraries(tmp_path).function("fa2_x", "plan")


def test_a_file_that_is_no_library_is_refused(tmp_path: Path) -> None:
    """What the loader says leaves as an error of the engine's settings."""
    pytest.importorskip("tvm_ffi")
    (tmp_path / "fa2_x.so").write_bytes(b"\x7fELF and nothing more")
    with pytest.raises(EngineMisconfigured, match="fa2_x"):
        FolderLibraries(tmp_path).function("fa2_x", "plan")
