"""Frozen kernels against the same kernels compiled at their launch, on a Hopper GPU.

CASEMATE_TEST_BUNDLE names a bundle that was built for `SHAPE` (Llama 3.1 8B) with `max_running_requests = 512`, by one engine
for each attention backend (`auto`, `triton`, `flashinfer`); see docs/kernels.md. The steps run with one layer of random weights:
a kernel knows no more of a model.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from runtime.attention.pages import allocate_pages
from runtime.attention.triton import TritonAttention
from runtime.identifiers import PAGE_SIZE
from runtime.kernels.bundle import Bundle, load_bundle
from runtime.kernels.digest import NODE_WORDS, DigestKernels, padded
from runtime.kernels.frozen import FrozenLauncher, load_frozen_launcher
from runtime.kernels.launcher import JitLauncher
from runtime.kernels.launching import Argument, Constant, Launcher, Options, Variant, variant_of
from runtime.kernels.libraries import BundleLibraries
from runtime.kernels.operations import FusedOperations
from runtime.models.fused import FusedDecoder
from runtime.runner.device_runner import DeviceRunner
from runtime.runner.kernel_needs import find_needs
from runtime.runner.step_buffers import RunnerLimits
from runtime.settings import EngineSettings
from runtime.weights.config import ModelConfig, load_model_config
from runtime.weights.loading import LoadedWeights, build_dummy_weights
from tests.support.step_batches import Chunk, sampling_batch, step_batch

pytestmark = pytest.mark.gpu

SHAPE = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 1,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500_000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
MAX_SEQUENCES = 512
PAGES_EACH = 3
PROMPT_LENGTH = 21
COMMON_PAGES = 20
"""With which all contexts begin where they have a beginning in common."""


class PairLauncher:
    """Launches each kernel twice over the same memory, compiled now and frozen, and keeps what came out different."""

    def __init__(self, jit: Launcher, frozen: Launcher) -> None:
        self._jit, self._frozen = jit, frozen
        self.seen: set[Variant] = set()
        self.different: list[str] = []

    def launch(
        self,
        kernel: str,
        grid: tuple[int, int, int],
        arguments: Sequence[Argument],
        constants: Mapping[str, Constant],
        options: Options,
    ) -> None:
        variant = variant_of(kernel, arguments, constants, options)
        if variant in self.seen:
            self._frozen.launch(kernel, grid, arguments, constants, options)
            return
        self.seen.add(variant)
        tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
        before = [tensor.clone() for tensor in tensors]
        self._jit.launch(kernel, grid, arguments, constants, options)
        compiled_now = [tensor.clone() for tensor in tensors]
        for tensor, value in zip(tensors, before, strict=True):
            tensor.copy_(value)
        self._frozen.launch(kernel, grid, arguments, constants, options)
        for index, (tensor, value) in enumerate(zip(tensors, compiled_now, strict=True)):
            if not torch.equal(bits_of(tensor), bits_of(value)):
                self.different.append(f"argument {index} of {variant}")


def bits_of(tensor: Tensor) -> Tensor:
    """NaN is equal to itself, and 0 is not -0."""
    return tensor.contiguous().view(torch.uint8)


@pytest.fixture(scope="module")
def bundle(device: torch.device) -> Bundle:
    folder = os.environ.get("CASEMATE_TEST_BUNDLE")
    if folder is None:
        pytest.skip("CASEMATE_TEST_BUNDLE names no bundle of frozen kernels")
    loaded = load_bundle(Path(folder))
    loaded.verify_sources()
    return loaded


@pytest.fixture(scope="module")
def frozen(bundle: Bundle, device: torch.device) -> FrozenLauncher:
    return load_frozen_launcher(bundle, device.index)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text(json.dumps(SHAPE))
    return load_model_config(folder)


@pytest.fixture(scope="module")
def weights(config: ModelConfig, device: torch.device) -> LoadedWeights:
    with torch.inference_mode():
        return build_dummy_weights(config, device=device, dtype=torch.bfloat16)


@pytest.fixture(scope="module")
def build(config: ModelConfig, weights: LoadedWeights, device: torch.device) -> Callable[[Launcher, int], DeviceRunner]:
    def build(launcher: Launcher, cuda_graph_max_bs: int) -> DeviceRunner:
        operations = FusedOperations(launcher, max_samples=MAX_SEQUENCES, vocab_size=config.vocab_size, device=device)
        with torch.inference_mode():
            model = FusedDecoder(config, weights.parameters, operations, num_positions=4096)
            pages = allocate_pages(
                num_layers=1, num_pages=1 + PAGES_EACH * MAX_SEQUENCES, num_kv_heads=config.num_kv_heads,
                head_dim=config.head_dim, device=device, dtype=torch.bfloat16,
            )  # fmt: skip
            pages.zero_()
        attention = TritonAttention(
            pages,
            num_heads=config.num_heads,
            layer_windows=config.layer_windows,
            launcher=launcher,
            max_decodes=MAX_SEQUENCES,
            num_multiprocessors=torch.cuda.get_device_properties(device).multi_processor_count,
            pdl=True,
        )
        limits = RunnerLimits(
            max_rows=16_384,
            max_sequences=MAX_SEQUENCES,
            max_table_pages=(COMMON_PAGES + 1) * MAX_SEQUENCES,
            cuda_graph_max_bs=cuda_graph_max_bs,
            piecewise_cuda_graph_max_tokens=0,
        )
        runner = DeviceRunner(config, model, operations, attention, pages, limits, weights_digest="")
        runner.capture_graphs()
        return runner

    return build


def pages_of(sequence: int) -> list[int]:
    return [1 + PAGES_EACH * sequence + index for index in range(PAGES_EACH)]


def prefill(runner: DeviceRunner, num_sequences: int) -> list[int]:
    random = np.random.default_rng(num_sequences)
    chunks = [
        Chunk(random.integers(0, 128_256, PROMPT_LENGTH).tolist(), 0, pages_of(index)) for index in range(num_sequences)
    ]
    return runner.launch(step_batch(chunks)).result().token_ids.tolist()


def decode(runner: DeviceRunner, num_sequences: int, step: int = 0) -> list[int]:
    """Each sequence goes on with its token of the step before; every second one is drawn with temperature."""
    chunks = [Chunk([0], PROMPT_LENGTH + step, pages_of(index), previous_row=index) for index in range(num_sequences)]
    drawn = np.arange(num_sequences) % 2
    batch = step_batch(chunks, sampling_batch(num_sequences, temperature=0.8 * drawn, seed=7, position=30 + step))
    return runner.launch(batch).result().token_ids.tolist()


def decode_common(runner: DeviceRunner, num_sequences: int) -> None:
    """Each sequence has one page of its own behind a common beginning."""
    common = list(range(1, 1 + COMMON_PAGES))
    chunks = [
        Chunk([7], PAGE_SIZE * COMMON_PAGES, [*common, 1 + COMMON_PAGES + index]) for index in range(num_sequences)
    ]
    runner.launch(step_batch(chunks, sampling_batch(num_sequences))).result()


def digest_groups(launcher: Launcher, num_groups: int, device: torch.device) -> None:
    """The digest of a file of so many groups, as a load computes it over the weights in device memory."""
    kernels = DigestKernels(launcher)
    size_bytes = num_groups * kernels.group_bytes - 5
    content = torch.randint(0, 256, (padded(size_bytes),), dtype=torch.uint8, device=device)
    content[size_bytes:] = 0
    nodes = torch.empty(num_groups, NODE_WORDS, dtype=torch.int32, device=device)
    kernels.hash_groups(content, size_bytes, 0, nodes, is_whole=False)
    kernels.merge(nodes)


def test_every_kernel_gives_the_bits_that_its_source_gives(
    bundle: Bundle,
    frozen: FrozenLauncher,
    config: ModelConfig,
    build: Callable[[Launcher, int], DeviceRunner],
    device: torch.device,
) -> None:
    """All variants of the configuration, each over the memory of a real step; none is left out."""
    settings = EngineSettings(
        model_path="", device="cuda", attention_backend="triton", max_running_requests=MAX_SEQUENCES
    )
    num_multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count
    needs = find_needs(config, settings, torch.bfloat16, num_multiprocessors=num_multiprocessors)
    bundle.verify_holds(needs.variants, ())
    launcher = PairLauncher(JitLauncher(), frozen)
    runner = build(launcher, 0)
    for num_sequences in (*range(1, 73), 100, 128, 250, MAX_SEQUENCES):
        prefill(runner, num_sequences)
        decode(runner, num_sequences)
    for num_sequences in (*range(16, 290), MAX_SEQUENCES):
        decode_common(runner, num_sequences)
    digest_groups(launcher, 200, device)
    assert launcher.different == []
    assert {str(variant) for variant in needs.variants - launcher.seen} == set()


@pytest.mark.parametrize("num_sequences", [1, 3, 7, 16, 40])
def test_captured_frozen_kernels_choose_the_same_tokens(
    num_sequences: int, frozen: FrozenLauncher, build: Callable[[Launcher, int], DeviceRunner]
) -> None:
    """Graphs of frozen kernels beside kernels that are compiled and launched one by one, at sizes without padding."""
    captured, plain = build(frozen, 40), build(JitLauncher(), 0)
    assert prefill(captured, num_sequences) == prefill(plain, num_sequences)
    for step in range(4):
        assert decode(captured, num_sequences, step) == decode(plain, num_sequences, step)


def test_a_launch_costs_little(frozen: FrozenLauncher, bundle: Bundle, device: torch.device) -> None:
    """Without a compiler in the way a launch costs the host less than with it; both are printed."""
    (entry,) = [entry for entry in bundle.manifest.kernels if entry.kernel == "activation.silu_and_multiply"]
    inner = int(entry.constants["INNER"])
    rows, out = (torch.zeros(1, width, dtype=torch.bfloat16, device=device) for width in (2 * inner, inner))
    grid = (1, -(-inner // int(entry.constants["BLOCK"])), 1)
    options = entry.variant.options
    costs: dict[str, float] = {}
    for name, launcher in (("frozen", frozen), ("compiled at launch", JitLauncher())):
        for count in (100, 500):
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(count):
                launcher.launch(entry.kernel, grid, (rows, out), entry.constants, options)
            spent = time.perf_counter() - start
        torch.cuda.synchronize()
        costs[name] = 1e6 * spent / count
        print(f"{name}: {costs[name]:.2f} us a launch")
    assert costs["frozen"] < costs["compiled at launch"]


def test_libraries_load_from_memory(bundle: Bundle, device: torch.device) -> None:
    """Every library of the bundle, from the bytes that were verified, exports what attention calls."""
    libraries = BundleLibraries(bundle)
    for entry in bundle.manifest.libraries:
        names = ("xqa_wrapper",) if entry.name.startswith("xqa") else ("plan", "paged_run")
        assert all(callable(libraries.function(entry.name, name)) for name in names)


def test_unaligned_tensors_are_refused(frozen: FrozenLauncher, bundle: Bundle, device: torch.device) -> None:
    """A kernel that loads 16 bytes at once must not be given an address between."""
    entry = next(entry for entry in bundle.manifest.kernels if entry.kernel == "activation.silu_and_multiply")
    tensors = [torch.zeros(64, dtype=torch.bfloat16, device=device)[1:] for _ in range(2)]
    with pytest.raises(ValueError, match="aligned to 16 bytes"):
        frozen.launch(entry.kernel, (1, 1, 1), tensors, entry.constants, entry.variant.options)


def run_engine(folder: Path, backend: str, kernels_path: str, frozen: str) -> dict[str, Any]:
    """What `frozen_engine.py` prints."""
    root = Path(__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("frozen_engine.py")), str(folder), backend, kernels_path, frozen],
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])  # type: ignore[no-any-return]


@pytest.mark.parametrize("backend", ["auto", "triton", "flashinfer"])
def test_an_engine_takes_everything_from_the_bundle(backend: str, bundle: Bundle, tmp_path: Path) -> None:
    """From choosing its kernels to captured decodes, with no compiler imported; tokens are those of one that compiles."""
    (tmp_path / "config.json").write_text(json.dumps(SHAPE | {"num_hidden_layers": 2}))
    frozen = run_engine(tmp_path, backend, os.environ["CASEMATE_TEST_BUNDLE"], "frozen")
    assert frozen["digest"] == bundle.manifest.digest
    assert frozen["compilers"] == []
    libraries = os.environ.get("CASEMATE_TEST_KERNELS")
    if backend == "triton" or libraries is not None:
        assert frozen["tokens"] == run_engine(tmp_path, backend, libraries or "", "compiled")["tokens"]
