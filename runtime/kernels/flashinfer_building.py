"""FlashInfer's libraries compiled on a machine without a GPU, the same bytes each time.

What makes a build repeatable: (1) one build folder, because the path of a source enters the names of device symbols;
(2) a seed that is given, because nvcc else takes the number of its process for names of device symbols; (3) no build id; (4)
what only a linker needs is stripped; (5) an environment that is given and not inherited. Libraries
are linked against a stub of NVIDIA's driver that is empty: the real one is there when they are loaded.

Needs `flashinfer-python`, nvcc, a C++ compiler, ninja and strip; what is missing is named before anything is compiled.
"""

import os
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from runtime.attention.flashinfer.libraries import LibraryName
from runtime.errors import EngineMisconfigured

_FLASHINFER = "flashinfer-python"
_ARCHITECTURES = {"sm_90a": "9.0a"}
"""As FlashInfer writes them."""
_HEADERS = "nvidia/cu13/include"
"""Where CUDA's packages put the headers that nvcc alone lacks (cuRAND, CCCL)."""
_ERROR_LINES = 20


@dataclass(frozen=True, slots=True)
class Toolchain:
    """Where the compilers are."""

    cuda_home: Path
    build_folder: Path
    """Made if it is absent, and kept: what was compiled is not compiled again. The same for builds to be compared."""
    jobs: int = 1


class FlashInferCompiler:
    """FlashInfer and nvcc for one architecture.

    Raises: EngineMisconfigured, naming what is not installed.
    """

    def __init__(self, arch: str, toolchain: Toolchain) -> None:
        self._arch = _ARCHITECTURES[arch]
        self._toolchain = toolchain
        self._nvcc = toolchain.cuda_home / "bin" / "nvcc"
        try:
            self.version = version(_FLASHINFER)
        except PackageNotFoundError as error:
            raise EngineMisconfigured(f"attention is compiled from {_FLASHINFER}, which is not installed") from error
        if not self._nvcc.is_file():
            raise EngineMisconfigured(f"attention is compiled by nvcc: expected it at {self._nvcc}")
        self._path = _search_path(self._nvcc.parent)
        for tool in ("g++", "ninja", "strip"):
            if shutil.which(tool, path=self._path) is None:
                raise EngineMisconfigured(f"attention is compiled with {tool}, which is not in {self._path}")

    @property
    def nvcc_version(self) -> str:
        """Of the release, as nvcc says it."""
        said = subprocess.run([self._nvcc, "--version"], check=True, capture_output=True, text=True).stdout  # noqa: S603
        return said.strip().splitlines()[-1]

    def compile(self, name: LibraryName) -> bytes:
        """Compile one library: minutes for FlashAttention 3.

        Raises: EngineMisconfigured with the end of what the compiler said.
        """
        folder = self._toolchain.build_folder
        _make_own(folder)
        self._write_stubs(folder / "stubs")
        words = (
            name.algorithm,
            name.query_type,
            name.cache_type,
            str(name.head_dim),
            str(int(name.windowed)),
            str(name.group_size),
        )
        ran = subprocess.run(  # noqa: S603
            [sys.executable, "-P", "-m", "runtime.kernels.flashinfer_recipe", *words],
            check=False,
            env=self._environment(folder),
            cwd=folder,
            capture_output=True,
            text=True,
        )
        if ran.returncode:
            tail = "\n".join(ran.stderr.splitlines()[-_ERROR_LINES:])
            raise EngineMisconfigured(f"{name} did not compile:\n{tail}")
        return self._strip(Path(ran.stdout.splitlines()[-1]), folder / "stripped.so")

    def _strip(self, library: Path, target: Path) -> bytes:
        strip = shutil.which("strip", path=self._path)
        assert strip is not None
        subprocess.run([strip, "--strip-unneeded", "-o", target, library], check=True)  # noqa: S603
        return target.read_bytes()

    def _write_stubs(self, folder: Path) -> None:
        if (folder / "libcuda.so").exists():
            return
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = ["g++", "-shared", "-Wl,-soname,libcuda.so.1", "-o", "libcuda.so", "-x", "c", "/dev/null"]
        subprocess.run(command, check=True, cwd=folder, env={"PATH": self._path})  # noqa: S603

    def _environment(self, folder: Path) -> dict[str, str]:
        stubs = folder / "stubs"
        return {
            "PATH": self._path,
            "HOME": str(folder),
            "PYTHONPATH": ":".join(path for path in sys.path if path),
            "CUDA_HOME": str(self._toolchain.cuda_home),
            "FLASHINFER_CUDA_ARCH_LIST": self._arch,
            "FLASHINFER_WORKSPACE_BASE": str(folder),
            "FLASHINFER_EXTRA_CUDAFLAGS": "-frandom-seed=casemate",
            "FLASHINFER_EXTRA_LDFLAGS": f"-Wl,--build-id=none -L{stubs} -Wl,--no-as-needed -lcuda",
            "LIBRARY_PATH": str(stubs),
            "CPATH": ":".join(f"{path}/{_HEADERS}" for path in sys.path if Path(path, _HEADERS).is_dir()),
            "MAX_JOBS": str(self._toolchain.jobs),
        }


def _make_own(folder: Path) -> None:
    """Make the folder, or see that it is ours alone: whoever can write there chooses what is compiled."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise EngineMisconfigured(f"{folder}: expected a folder of this user that nobody else can write to")


def _search_path(nvcc_folder: Path) -> str:
    return ":".join((str(Path(sys.executable).parent), str(nvcc_folder), "/usr/local/bin", "/usr/bin", "/bin"))
