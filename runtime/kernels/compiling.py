"""Compiles variants of our Triton kernels ahead of time, on any machine: no GPU is asked, and nothing is cached.

What Triton assumes when it compiles at a launch is assumed here of every launch: pointers are multiples of 16 bytes, and
no other value of an argument is known. Line information is left out, as it holds the path of this checkout: so the same
sources, Triton and ptxas give the same bytes wherever they lie.

Source: Triton 3.6, `triton/compiler/compiler.py` and `backends/nvidia`.
"""

import hashlib
import importlib
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from runtime.errors import EngineMisconfigured
from runtime.kernels.launching import POINTER_ALIGNMENT, Variant
from runtime.kernels.manifest import KernelEntry

CAPABILITIES = {"sm_90a": 90}
"""Compute capability by architecture, as Triton counts; it adds the `a` itself."""

_WARP_SIZE = 32
_PARAMETER = re.compile(r"\.param \.(\w+)")
_PARAMETER_TYPES = {"i32": "u32", "fp32": "f32"}
_POINTER_TYPE = "u64"


@dataclass(frozen=True, slots=True)
class CompiledKernel:
    """One variant as machine code."""

    entry: KernelEntry
    cubin: bytes


class TritonCompiler:
    """Triton for one architecture.

    Raises: EngineMisconfigured if Triton is not installed, or the architecture is none of `CAPABILITIES`.
    """

    def __init__(self, arch: str) -> None:
        if arch not in CAPABILITIES:
            raise EngineMisconfigured(f"arch: expected one of {', '.join(CAPABILITIES)}, found {arch}")
        try:
            self._triton: Any = importlib.import_module("triton")
        except ImportError as error:
            raise EngineMisconfigured(f"Triton compiles our kernels and is not installed: {error}") from error
        self._target = importlib.import_module("triton.backends.compiler").GPUTarget(
            "cuda", CAPABILITIES[arch], _WARP_SIZE
        )

    @property
    def version(self) -> str:
        """Triton's own."""
        return str(self._triton.__version__)

    @property
    def ptxas_version(self) -> str:
        """That of the assembler which Triton calls."""
        ptxas = importlib.import_module("triton.knobs").nvidia.ptxas.path
        said = subprocess.run([ptxas, "--version"], check=True, capture_output=True, text=True).stdout  # noqa: S603
        return said.strip().splitlines()[-1]

    def compile(self, variant: Variant) -> CompiledKernel:
        """Compile one variant.

        Raises: EngineMisconfigured for a kernel that needs what no launch of ours gives: scratch memory, clusters.
        """
        function = self._find(variant.kernel)
        with self._quiet():
            compiled = self._triton.compile(
                _source(function, variant),
                target=self._target,
                options={
                    "num_warps": variant.options.num_warps,
                    "num_stages": variant.options.num_stages,
                    "launch_pdl": variant.options.launch_pdl,
                },
            )
        metadata, cubin = compiled.metadata, bytes(compiled.asm["cubin"])
        verify_plain(variant, metadata)
        entry = KernelEntry(
            kernel=variant.kernel,
            argument_types=variant.argument_types,
            constants=dict(variant.constants),
            num_warps=metadata.num_warps,
            num_stages=variant.options.num_stages,
            launch_pdl=variant.options.launch_pdl,
            symbol=metadata.name,
            shared_bytes=metadata.shared,
            scratch_pointers=count_scratch_pointers(variant, compiled.asm["ptx"]),
            sha256=hashlib.sha256(cubin).hexdigest(),
            size_bytes=len(cubin),
        )
        return CompiledKernel(entry, cubin)

    def _find(self, kernel: str) -> Any:
        module, name = kernel.split(".")
        return getattr(importlib.import_module(f"runtime.kernels.triton.{module}"), name)

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Triton's switches while it compiles: nothing is taken from or left in the user's cache."""
        knobs: Any = importlib.import_module("triton.knobs")
        with tempfile.TemporaryDirectory() as folder, knobs.cache.scope(), knobs.compilation.scope():
            knobs.cache.dir = folder
            knobs.compilation.always_compile = True
            knobs.compilation.disable_line_info = True
            yield


def _source(function: Any, variant: Variant) -> Any:
    constants: Mapping[str, Any] = dict(variant.constants)
    names = [name for name in function.arg_names if name not in constants]
    if set(constants) - set(function.arg_names) or len(names) != len(variant.argument_types):
        raise EngineMisconfigured(f"{variant}: the kernel has arguments {function.arg_names}")
    types = dict(zip(names, variant.argument_types, strict=True))
    place = {name: (index,) for index, name in enumerate(function.arg_names)}
    return importlib.import_module("triton.compiler").ASTSource(
        function,
        {name: types.get(name, "constexpr") for name in function.arg_names},
        constexprs={place[name]: value for name, value in constants.items()},
        attrs={
            place[name]: [["tt.divisibility", POINTER_ALIGNMENT]]
            for name, kind in types.items()
            if kind.startswith("*")
        },
    )


def verify_plain(variant: Variant, metadata: Any) -> None:
    """That a compiled kernel wants nothing which a frozen launch does not give.

    Raises: EngineMisconfigured, naming it.
    """
    expected = {
        "num_ctas": 1,
        "launch_cooperative_grid": False,
        "global_scratch_size": 0,
        "profile_scratch_size": 0,
        "warp_size": _WARP_SIZE,
        "num_warps": variant.options.num_warps,
    }
    for name, value in expected.items():
        if (found := getattr(metadata, name)) != value:
            raise EngineMisconfigured(f"{variant}: frozen launches have {name} {value}, this kernel wants {found}")


def count_scratch_pointers(variant: Variant, ptx: str) -> int:
    """How many pointers the machine code takes after the arguments that we know.

    Raises: EngineMisconfigured if its parameters are not ours, in order, and pointers behind them.
    """
    entry = ptx.index(".entry")
    declared = _PARAMETER.findall(ptx[entry : ptx.index("{", entry)])
    known = [_POINTER_TYPE if kind.startswith("*") else _PARAMETER_TYPES[kind] for kind in variant.argument_types]
    rest = declared[len(known) :]
    if declared[: len(known)] != known or set(rest) - {_POINTER_TYPE}:
        raise EngineMisconfigured(f"{variant}: expected parameters {known} and pointers, Triton made {declared}")
    return len(rest)
