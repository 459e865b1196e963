"""Compiling ahead of time: what is refused, what is imported, and that it gives the same bytes twice."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runtime.errors import EngineMisconfigured
from runtime.kernels.compiling import TritonCompiler, count_scratch_pointers, verify_plain
from runtime.kernels.launching import Options, Variant

ROOT = Path(__file__).parents[4]
VARIANT = Variant(
    "activation.silu_and_multiply",
    ("*bf16", "*bf16"),
    (("BLOCK", 128), ("INNER", 100), ("PDL", True)),
    Options(num_warps=1, launch_pdl=True),
)
PTX = """.version 8.7
.visible .entry kernel(
 .param .u64 .ptr .global .align 1 kernel_param_0,
 .param .u64 .ptr .global .align 1 kernel_param_1,
 .param .u32 kernel_param_2,
 .param .f32 kernel_param_3{more}
)
.reqntid 32
{{ .param .u64 not_a_parameter; }}
"""
POINTER = ",\n .param .u64 .ptr .global .align 1 kernel_param_4"
PLAIN = {
    "num_ctas": 1,
    "launch_cooperative_grid": False,
    "global_scratch_size": 0,
    "profile_scratch_size": 0,
    "warp_size": 32,
    "num_warps": 1,
}


def test_parameters_beyond_the_arguments_are_counted() -> None:
    """Triton 3.6 has two: places for scratch memory."""
    types = ("*bf16", "*fp32", "i32", "fp32")
    variant = Variant("m.kernel", types, (), Options())
    assert count_scratch_pointers(variant, PTX.format(more="")) == 0
    assert count_scratch_pointers(variant, PTX.format(more=2 * POINTER)) == 2


@pytest.mark.parametrize(
    ("types", "more"),
    [
        (("*bf16", "*fp32", "fp32", "i32"), ""),
        (("*bf16", "*fp32", "i32", "fp32", "*bf16"), ""),
        (("*bf16", "*fp32", "i32", "fp32"), ",\n .param .u32 kernel_param_4"),
    ],
    ids=["other types", "fewer", "a number more"],
)
def test_other_parameters_than_ours_are_refused(types: tuple[str, ...], more: str) -> None:
    """A launch would put arguments where the kernel does not look for them."""
    with pytest.raises(EngineMisconfigured, match="expected parameters"):
        count_scratch_pointers(Variant("m.kernel", types, (), Options()), PTX.format(more=more))


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_ctas", 2), ("launch_cooperative_grid", True), ("global_scratch_size", 128), ("num_warps", 8)],
)
def test_a_kernel_that_wants_what_no_launch_gives_is_refused(name: str, value: Any) -> None:
    """Clusters, cooperation, scratch memory, warps that were not asked for."""
    verify_plain(VARIANT, SimpleNamespace(**PLAIN))
    with pytest.raises(EngineMisconfigured, match=f"this kernel wants {value}"):
        verify_plain(VARIANT, SimpleNamespace(**(PLAIN | {name: value})))


def test_an_unknown_architecture_is_refused() -> None:
    """Before anything is compiled."""
    with pytest.raises(EngineMisconfigured, match="expected one of sm_90a, found sm_80"):
        TritonCompiler("sm_80")


def test_a_frozen_process_imports_no_compiler() -> None:
    """Neither with what chooses its kernels, nor with what launches them."""
    modules = (
        "runtime.runner.kernel_choice, runtime.kernels.frozen, runtime.runner.kernel_needs, appliance.processes.engine"
    )
    code = f"import sys, {modules}; print(*sorted({{'triton', 'flashinfer'}} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout.split() == []


@pytest.mark.long
def test_two_builds_are_the_same_bytes(tmp_path: Path) -> None:
    """All kernels of a small model, each time by a process of its own, from checkouts at two paths."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(
        '{"architectures": ["Qwen3ForCausalLM"], "vocab_size": 331, "hidden_size": 128, "intermediate_size": 96, '
        '"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, '
        '"max_position_embeddings": 256}'
    )
    (tmp_path / "casemate.toml").write_text(
        '[[engines]]\nmodel_path = "model"\ndevice = "cuda"\ndtype = "bfloat16"\nmax_running_requests = 3\n'
        'attention_backend = "triton"\n'
    )
    manifests = []
    for number in range(2):
        checkout = tmp_path / f"checkout{number}" / ("deeper" * number)
        checkout.mkdir(parents=True)
        for package in ("appliance", "runtime", "security", "audit", "compliance"):
            (checkout / package).symlink_to(ROOT / package)
        command = ["kernels", "build", "--config", "casemate.toml", "--out", f"bundle{number}"]
        subprocess.run(
            [sys.executable, "-c", f"import sys; from appliance.cli.main import main; sys.exit(main({command!r}))"],
            env={"PYTHONPATH": str(checkout), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
            cwd=tmp_path,
            check=True,
        )
        manifests.append((tmp_path / f"bundle{number}" / "manifest.json").read_bytes())
    assert manifests[0] == manifests[1]
    assert manifests[0].count(b'"symbol"') > 10
