"""`casemate kernels`: a bundle is built, verified and listed; what is missing is named."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.main import EXIT_FAILED, EXIT_MISCONFIGURED, EXIT_OK, main
from runtime.errors import EngineMisconfigured
from runtime.kernels import compiling
from runtime.kernels.compiling import CompiledKernel
from runtime.kernels.launching import Variant
from runtime.kernels.manifest import KernelEntry
from tests.support.controls import control

CONFIG = """
[[engines]]
model_path = "model"
device = "cuda"
dtype = "bfloat16"
max_running_requests = 4
"""
SHAPE = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 331,
    "hidden_size": 128,
    "intermediate_size": 90,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 256,
}


class PlainCompiler:
    """Machine code is the variant's name."""

    version = "3.6.0"
    ptxas_version = "12.8"

    def __init__(self, arch: str) -> None:
        assert arch == "sm_90a"

    def compile(self, variant: Variant) -> CompiledKernel:
        cubin = str(variant).encode()
        options = variant.options
        entry = KernelEntry(
            kernel=variant.kernel, argument_types=variant.argument_types, constants=dict(variant.constants),
            num_warps=options.num_warps, num_stages=options.num_stages, launch_pdl=options.launch_pdl,
            symbol=variant.kernel.split(".")[1], shared_bytes=0, scratch_pointers=2,
            sha256=hashlib.sha256(cubin).hexdigest(), size_bytes=len(cubin),
        )  # fmt: skip
        return CompiledKernel(entry, cubin)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `casemate.toml`, `model/` and compiled `libraries/`, which is the working directory."""
    (tmp_path / "casemate.toml").write_text(CONFIG)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(SHAPE))
    (tmp_path / "libraries").mkdir()
    for algorithm in ("fa2", "fa3"):
        (tmp_path / "libraries" / f"{algorithm}_bf16_bf16_d64.so").write_bytes(algorithm.encode() * 8)
    (tmp_path / "libraries" / "versions.json").write_text('{"nvcc": "13.0", "flashinfer": "0.6.14"}')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compiling, "TritonCompiler", PlainCompiler)
    return tmp_path


def build(*words: str) -> int:
    """`casemate kernels build --config casemate.toml --out bundle …`."""
    return main(["kernels", "build", "--config", "casemate.toml", "--out", "bundle", *words])


def test_a_bundle_is_built_verified_and_listed(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The way of the documentation; each says the same digest, and progress goes to standard error."""
    assert build("--reuse", "libraries") == EXIT_OK
    built = capsys.readouterr()
    assert main(["kernels", "verify", "bundle", "--config", "casemate.toml"]) == EXIT_OK
    verified = capsys.readouterr().out
    assert verified == built.out
    assert "made by    Triton 3.6.0; ptxas 12.8; FlashInfer 0.6.14; nvcc 13.0" in verified
    assert "kernel 1 of" in built.err
    assert main(["kernels", "list", "bundle"]) == EXIT_OK
    listed = capsys.readouterr().out
    assert "library    fa3_bf16_bf16_d64  24 bytes" in listed
    assert "kernel     rotary.rotate_and_store(" in listed


def test_a_bundle_gives_its_libraries_to_the_next(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And the same inputs give the same digest."""
    assert build("--reuse", "libraries") == EXIT_OK
    first = capsys.readouterr().out
    assert main(["kernels", "build", "--config", "casemate.toml", "--out", "again", "--reuse", "bundle"]) == EXIT_OK
    assert capsys.readouterr().out == first


def test_json_is_for_scripts(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The manifest itself, and its digest."""
    build("--reuse", "libraries")
    capsys.readouterr()
    assert main(["kernels", "list", "bundle", "--json"]) == EXIT_OK
    manifest = capsys.readouterr().out
    assert main(["kernels", "verify", "bundle", "--json"]) == EXIT_OK
    assert json.loads(capsys.readouterr().out)["sha256"] == hashlib.sha256(manifest.encode()).hexdigest()
    assert manifest == (workplace / "bundle" / "manifest.json").read_text()


@control("3.4.8", "CM-7(5)", "SI-7(5)")
def test_a_changed_file_fails_and_is_named(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One byte."""
    build("--reuse", "libraries")
    changed = min((workplace / "bundle").glob("*.cubin"))
    changed.write_bytes(b"x" + changed.read_bytes()[1:])
    assert main(["kernels", "verify", "bundle"]) == EXIT_MISCONFIGURED
    assert changed.name in capsys.readouterr().err


def test_a_bundle_for_less_is_told_what_it_lacks(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With more requests at once kernels are needed that it does not hold."""
    build("--reuse", "libraries")
    (workplace / "casemate.toml").write_text(CONFIG.replace("= 4", "= 40"))
    assert main(["kernels", "verify", "bundle", "--config", "casemate.toml"]) == EXIT_MISCONFIGURED
    assert "the kernel bundle lacks" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("prepare", "words", "said", "exit_code"),
    [
        (lambda place: (place / "bundle" / "x").mkdir(parents=True), [], "expected a new or an empty folder", EXIT_FAILED),
        (lambda place: (place / "libraries" / "fa3_bf16_bf16_d64.so").unlink(), ["--reuse", "libraries"],
         "holds no library fa3_bf16_bf16_d64", EXIT_MISCONFIGURED),
        (lambda place: (place / "libraries" / "versions.json").unlink(), ["--reuse", "libraries"], "versions.json",
         EXIT_MISCONFIGURED),
        (lambda place: (place / "casemate.toml").write_text('[[engines]]\nmodel_path = "model"\n'), [],
         "names no engine on a GPU", EXIT_FAILED),
    ],
    ids=["a folder that holds something", "a missing library", "unknown compilers", "no engine on a GPU"],
)  # fmt: skip
def test_what_keeps_a_build_from_starting_is_named(
    workplace: Path, capsys: pytest.CaptureFixture[str], prepare: Callable[[Path], Any], words: list[str], said: str,
    exit_code: int,
) -> None:  # fmt: skip
    """In one line, and no bundle is written."""
    prepare(workplace)
    assert build(*words) == exit_code
    assert said in capsys.readouterr().err
    assert not (workplace / "bundle" / "manifest.json").exists()


def test_a_missing_compiler_is_named(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """FlashInfer's package, or nvcc where it was looked for: whichever comes first on this machine."""
    assert build("--cuda-home", "nowhere", "--build-folder", "work") == EXIT_MISCONFIGURED
    said = capsys.readouterr().err
    assert "flashinfer-python, which is not installed" in said or "nvcc: expected it at nowhere/bin/nvcc" in said

    def absent(arch: str) -> PlainCompiler:
        raise EngineMisconfigured("Triton compiles our kernels and is not installed")

    monkeypatch.setattr(compiling, "TritonCompiler", absent)
    assert build("--reuse", "libraries") == EXIT_MISCONFIGURED
    assert "Triton" in capsys.readouterr().err
