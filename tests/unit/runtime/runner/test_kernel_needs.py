"""The kernels that an engine is said to need are those that its steps launch."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from runtime.attention import shared_prefixes, triton
from runtime.attention.device import DeviceAttention
from runtime.attention.pages import SCALE_COLUMNS, allocate_pages
from runtime.batch import StepBatch
from runtime.engine.loop import Engine
from runtime.errors import EngineMisconfigured
from runtime.kernels import quantized
from runtime.kernels.digest import DigestKernels
from runtime.kernels.invariant import InvariantOperations
from runtime.kernels.launching import Argument, Constant, Options
from runtime.kernels.operations import FusedOperations
from runtime.kernels.recording import RecordingLauncher
from runtime.layers.quantized import QuantizedLinear, QuantizedRows
from runtime.models.fused import FusedDecoder
from runtime.request import GenerationRequest, SamplingParams
from runtime.runner.attention_choice import build_invariant_attention, build_triton_attention
from runtime.runner.building import apply_quantization, context_length_of
from runtime.runner.cache_choice import cache_dtype
from runtime.runner.device_building import CacheUse
from runtime.runner.device_runner import DeviceRunner
from runtime.runner.kernel_needs import KernelNeeds, find_needs
from runtime.runner.step_buffers import RunnerLimits
from runtime.settings import EngineSettings
from runtime.speculative.source import HeadSource
from runtime.weights.config import ModelConfig, load_model_config
from runtime.weights.loading import build_dummy_weights
from runtime.weights.tree_digest import TreeDigest
from tests.support.device_runners import build_speculating_recorded
from tests.support.draft_heads import write_head, write_target
from tests.support.quantized_checkpoints import CONFIG, FORMATS
from tests.support.step_batches import Chunk, sampling_batch, step_batch
from tests.unit.runtime.runner.conftest import LLAMA, SLIDING_QWEN

MAX_SEQUENCES = 40
PAGES_EACH = 8
CHUNK = 150
SETTINGS = EngineSettings(
    model_path="",
    device="cuda",
    attention_backend="triton",
    max_running_requests=MAX_SEQUENCES,
    chunked_prefill_size=CHUNK,
    cuda_graph_max_bs=20,
)
SPECULATION: dict[str, Any] = {
    "speculative_algorithm": "EAGLE3",
    "speculative_num_steps": 4,
    "speculative_eagle_topk": 1,
    "speculative_num_draft_tokens": 5,
}
TREES = SPECULATION | {"speculative_eagle_topk": 3, "speculative_num_draft_tokens": 11}
CPU, DTYPE = torch.device("cpu"), torch.bfloat16


class Recorded:
    """What was said to be needed, and a runner whose launches are written down. Not a dataclass: it would be told in full."""

    def __init__(self, needs: KernelNeeds, launcher: RecordingLauncher, runner: DeviceRunner) -> None:
        self.needs, self.launcher, self.runner = needs, launcher, runner


def load(folder: Path, shape: dict[str, Any], **given: Any) -> ModelConfig:
    (folder / "config.json").write_text(json.dumps(shape | given))
    return load_model_config(folder)


def build_recorded(config: ModelConfig, launcher: RecordingLauncher, settings: EngineSettings) -> DeviceRunner:
    """A runner whose kernels compute nothing; products by torch are made, of whatever lies in memory."""
    cached = cache_dtype(settings.kv_cache_dtype, DTYPE)
    scales = torch.ones(config.num_layers, SCALE_COLUMNS) if cached != DTYPE else None
    kind = InvariantOperations if settings.deterministic else FusedOperations
    operations = kind(launcher, max_samples=MAX_SEQUENCES, vocab_size=config.vocab_size, device=CPU)
    with torch.inference_mode():
        weights = build_dummy_weights(config, device=CPU, dtype=DTYPE)
        model = FusedDecoder(config, weights.parameters, operations, num_positions=PAGES_EACH * 16, cache_scales=scales)
        pages = allocate_pages(
            num_layers=config.num_layers, num_pages=1 + PAGES_EACH * MAX_SEQUENCES, num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim, device=CPU, dtype=cached,
        )  # fmt: skip
    use = CacheUse(pages, config, MAX_SEQUENCES, context_length_of(settings, config), DTYPE, scales)
    attention: DeviceAttention = build_triton_attention(launcher, use, 132)
    if settings.deterministic:
        attention = build_invariant_attention(launcher, use, 132)
    limits = RunnerLimits(
        CHUNK + MAX_SEQUENCES, MAX_SEQUENCES, PAGES_EACH * MAX_SEQUENCES, SETTINGS.cuda_graph_max_bs, CHUNK // 2
    )
    runner = DeviceRunner(config, model, operations, attention, pages, limits, weights_digest="")
    runner.capture_graphs()
    return runner


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "llama": (LLAMA, {}),
    "sliding-qwen": (SLIDING_QWEN, {}),
    "fp8 at load": (CONFIG, {"quantization": "fp8"}),
    "fp8 channel static, e4m3 cache": (
        CONFIG | {"quantization_config": FORMATS["fp8, tensor, static"].declared},
        {"kv_cache_dtype": "fp8_e4m3"},
    ),
    "fbgemm, bias": (
        CONFIG
        | {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}
        | {"quantization_config": FORMATS["fbgemm_fp8"].declared},
        {},
    ),
    "fp8 block, e4m3 cache": (
        CONFIG | {"quantization_config": FORMATS["fp8, block"].declared},
        {"kv_cache_dtype": "fp8_e4m3"},
    ),
    "e4m3 cache, windows": (SLIDING_QWEN, {"kv_cache_dtype": "fp8_e4m3"}),
    "deterministic": (SLIDING_QWEN | {"max_position_embeddings": 2000}, {"deterministic": True}),
}
"""Shapes and settings of engines."""


@pytest.fixture(autouse=True, scope="module")
def short_beginnings() -> Iterator[None]:
    """Sequences here have few pages, many of them the same: one in common is enough to be read once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_prefixes, "_MIN_PAGES", 1)
        for name in ("DEFAULT_BLOCKS", "E4M3_BLOCKS"):
            patch.setattr(triton, name, replace(getattr(triton, name), shared_rows=16))
        yield


@pytest.fixture(scope="module", params=CASES)
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    shape, given = CASES[request.param]
    settings = msgspec.structs.replace(SETTINGS, **given)
    loaded = load(tmp_path_factory.mktemp("model"), shape, vocab_size=5000)
    config = apply_quantization(loaded, settings.quantization)
    launcher = RecordingLauncher()
    return Recorded(find_needs(config, settings, DTYPE), launcher, build_recorded(config, launcher, settings))


@pytest.fixture(autouse=True, scope="module")
def products_of_shapes() -> Iterator[None]:
    """cuBLAS's products in e4m3 have no like on a CPU: of these the shape is enough."""

    def shaped(rows: QuantizedRows, linear: QuantizedLinear, dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(rows.values.shape[0], linear.weight.shape[0], dtype=dtype)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantized, "_multiply_channels", shaped)
        patch.setattr(quantized, "_multiply_blocks", shaped)
        yield


def mixed_step(num_decodes: int, lengths: list[int], num_logprobs: int, num_scored: int) -> StepBatch:
    """Decodes beside chunks, some of them sampled at every token; the first `num_scored` rows are scored."""
    chunks = [Chunk([5], index % 100, range(1, 1 + PAGES_EACH)) for index in range(num_decodes)]
    chunks += [Chunk([7] * length, 3, range(9, 9 + PAGES_EACH), sample_all=length <= 4) for length in lengths]
    num_samples = sum(len(chunk.token_ids) if chunk.sample_all else 1 for chunk in chunks)
    batch = step_batch(chunks, sampling_batch(num_samples, num_logprobs=num_logprobs))
    count = min(num_scored, len(batch.token_ids))
    return replace(
        batch,
        prompt_logprob_rows=np.arange(count, dtype=np.int32),
        prompt_logprob_targets=np.zeros(count, np.int64),
        prompt_logprob_counts=np.ones(count, np.int32),
    )


@given(
    num_decodes=st.integers(0, MAX_SEQUENCES - 12),
    lengths=st.lists(st.integers(2, CHUNK // 3), min_size=1, max_size=3) | st.just([]),
    num_logprobs=st.sampled_from([-1, 0, 3]),
    num_scored=st.integers(0, 12) | st.integers(0, 3 * CHUNK),
)
@settings(max_examples=60)
def test_no_step_launches_what_was_not_recorded(
    recorded: Recorded,
    num_decodes: int,
    lengths: list[int],
    num_logprobs: int,
    num_scored: int,
) -> None:
    """Random steps of a runner, captured or not, stay within the set that was found without a device."""
    assume(num_decodes or lengths)
    recorded.runner.launch(mixed_step(num_decodes, lengths, num_logprobs, num_scored)).result()
    assert {str(variant) for variant in recorded.launcher.variants - recorded.needs.variants} == set()


def test_scored_prompts_have_their_kernels(tmp_path: Path) -> None:
    """Of more rows than sequences run at once, where the head is large enough for our own product of up to 128 rows."""
    config = load(tmp_path, LLAMA, vocab_size=100_000)
    needs = find_needs(config, msgspec.structs.replace(SETTINGS, max_running_requests=8), DTYPE)
    heads = [dict(variant.constants) for variant in needs.variants if variant.kernel == "linear.dot"]
    assert {each["ROWS"] for each in heads if each["N"] == 100_000} >= {16, 32, 64, 128}


def test_deterministic_engines_have_one_way_for_any_rows(tmp_path: Path) -> None:
    """No kernel that is chosen by the number of rows, blocks of one size for the choice of a token, and one attention."""
    config = load(tmp_path, LLAMA, max_position_embeddings=4096)
    needs = find_needs(config, msgspec.structs.replace(SETTINGS, deterministic=True), DTYPE)
    of_one_way = {"invariant.multiply", "invariant_attention.attend", "norm.add_rms_norm"}
    of_one_way |= {"invariant_attention.join", "sampling.block_candidates"}
    assert of_one_way <= kernel_names(needs)
    assert not any(name.startswith(("linear.", "decode", "verify.", "prefill.")) for name in kernel_names(needs))
    blocks = {dict(each.constants)["BLOCK"] for each in needs.variants if each.kernel == "sampling.block_candidates"}
    assert len(blocks) == 1
    attention = [each for each in needs.variants if each.kernel == "invariant_attention.attend"]
    assert len({dict(each.constants)["BLOCK_TOKENS"] for each in attention}) == 1


def test_captured_sizes_launch_what_was_recorded(
    recorded: Recorded,
) -> None:
    """The graphs were captured when the runner was made; something was launched at all, beginnings read once among it."""
    names = {variant.kernel for variant in recorded.launcher.variants}
    assert names & {"decode_shared.split", "invariant.multiply"}
    assert recorded.launcher.variants <= recorded.needs.variants


@pytest.mark.parametrize("rows", range(1, 10))
def test_every_small_batch_has_its_kernels(recorded: Recorded, rows: int) -> None:
    """The sizes at which kernels change, one by one, without a graph."""
    recorded.runner.launch(step_batch([Chunk([7] * rows, 0, [1])])).result()
    assert recorded.launcher.variants <= recorded.needs.variants


def test_fp8_is_rehearsed_with_its_own_kernels(tmp_path: Path) -> None:
    """Every kernel of FP8 weights and of an e4m3 cache by name, and none of those that they take the place of but the head's."""
    config = load(tmp_path, CONFIG | {"quantization_config": FORMATS["fp8, tensor, static"].declared})
    needs = find_needs(config, msgspec.structs.replace(SETTINGS, kv_cache_dtype="fp8_e4m3"), DTYPE)
    assert kernel_names(needs) >= {
        "quantize.rows", "quantize.gated", "quantized.multiply_reduce", "quantized.dot", "decode_e4m3.split",
        "decode.merge", "prefill.causal", "rotary.rotate_and_store",
    }  # fmt: skip
    assert not kernel_names(needs) & {"decode.split", "activation.silu_and_multiply"}
    linear = {variant for variant in needs.variants if variant.kernel.startswith("linear.")}
    assert {dict(variant.constants)["N"] for variant in linear} == {config.vocab_size}


class ZeroingLauncher(RecordingLauncher):
    """Writes launches down; what other operations index by is 0, and every chain gets one token."""

    def launch(
        self,
        kernel: str,
        grid: tuple[int, int, int],
        arguments: Sequence[Argument],
        constants: Mapping[str, Constant],
        options: Options,
    ) -> None:
        super().launch(kernel, grid, arguments, constants, options)
        zeros, ones = {"chains.accept": (range(9, 13), [8]), "sampling.choose": ([6], [7])}.get(kernel, ((), ()))
        for values, places in ((0, zeros), (1, ones)):
            for place in places:
                argument = arguments[place]
                assert isinstance(argument, torch.Tensor)
                argument.fill_(values)


QUANTIZED: dict[str, Any] = {"quantization": "fp8", "kv_cache_dtype": "fp8_e4m3"}


@pytest.fixture(
    scope="module",
    params=[
        SPECULATION,
        SPECULATION | QUANTIZED,
        SPECULATION | {"deterministic": True, "kv_cache_dtype": "fp8_e4m3"},
        pytest.param(TREES, marks=pytest.mark.long),
        pytest.param(TREES | QUANTIZED, marks=pytest.mark.long),
    ],
    ids=[
        "chains",
        "chains, fp8 at load, e4m3 cache",
        "chains, deterministic, e4m3 cache",
        "trees",
        "trees, fp8 at load, e4m3 cache",
    ],
)
def speculating(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[KernelNeeds, RecordingLauncher, Engine]:
    """What a speculating engine is said to need, and one whose kernels compute nothing."""
    folder = write_target(tmp_path_factory.mktemp("target"))
    head_folder = write_head(tmp_path_factory.mktemp("head"))
    given = request.param | {"speculative_draft_model_path": str(head_folder)}
    settings = msgspec.structs.replace(SETTINGS, max_running_requests=12, cuda_graph_max_bs=5, **given)
    config = apply_quantization(load_model_config(folder), settings.quantization)
    launcher = ZeroingLauncher()
    runner = build_speculating_recorded(folder, HeadSource(head_folder), launcher, settings)
    engine = Engine(runner, settings, [], PAGES_EACH * 16, lambda: 0.0)
    return find_needs(config, settings, DTYPE), launcher, engine


def test_speculating_engines_launch_what_was_recorded(
    speculating: tuple[KernelNeeds, RecordingLauncher, Engine], request: pytest.FixtureRequest
) -> None:
    """Prompts, mixed steps, graphs and steps outside of them, whatever is accepted: tokens are what lies in memory."""
    needs, launcher, engine = speculating
    for place in range(15):
        sampling = SamplingParams(max_tokens=5 + place, temperature=place % 2, seed=place)
        engine.submit(
            GenerationRequest(request_id=place, prompt=[3] * (1 + 7 * place), sampling=sampling, n=1 + place % 3)
        )
        for _ in range(3):
            engine.step()
    while engine.has_work:
        engine.step()
    assert {str(variant) for variant in launcher.variants - needs.variants} == set()
    names = {variant.kernel for variant in launcher.variants}
    verifies = "invariant_attention.attend" if "deterministic" in request.node.name else "verify.split"
    assert names >= {verifies, "chains.place", "chains.join"}
    assert ("chains.accept" in names) == ("chains" in request.node.name)


def kernel_names(needs: KernelNeeds) -> set[str]:
    return {variant.kernel for variant in needs.variants}


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_need_the_kernels_of_their_share(size: int, tmp_path: Path) -> None:
    """Sums and joined logits of so many ranks, large sums of more than two by slices; and products of their own sizes."""
    folder = tmp_path / "model"
    folder.mkdir()
    shape = CONFIG | {"hidden_size": 8192, "vocab_size": 96 * size}
    (folder / "config.json").write_text(json.dumps(shape))
    settings = msgspec.structs.replace(SETTINGS, tp_size=size)
    needs = find_needs(load_model_config(folder), settings, DTYPE)
    of_ranks = [variant for variant in needs.variants if variant.kernel.startswith("ranks.")]
    assert {dict(variant.constants)["RANKS"] for variant in of_ranks} == {size}
    kernels = {"ranks.add_sum", "ranks.join"} | ({"ranks.add_sum_by_slices"} if size > 2 else set())
    assert {variant.kernel for variant in of_ranks} == kernels
    constants = [dict(variant.constants) for variant in needs.variants if variant.kernel.startswith("linear.")]
    rows = {(3 * 128) // size, CONFIG["intermediate_size"] // size, 96}
    assert rows <= {each["N"] for each in constants}
    assert {128 // size, CONFIG["intermediate_size"] // size} <= {each["K"] for each in constants}


def test_what_hashes_a_checkpoint_is_needed(tmp_path: Path) -> None:
    """By every engine, whatever computes its attention, in the variants that a file of many groups launches."""
    settings = msgspec.structs.replace(SETTINGS, attention_backend="flashinfer")
    needs = find_needs(load(tmp_path, LLAMA, head_dim=64), settings, DTYPE)
    launcher = RecordingLauncher()
    digest = TreeDigest(1 << 20, CPU, DigestKernels(launcher))
    digest.add(0, torch.zeros(1 << 20, dtype=torch.uint8), 1 << 20)
    digest.hexdigest()
    assert {variant.kernel for variant in launcher.variants} == {"digest.hash_chunks", "digest.merge_nodes"}
    assert launcher.variants <= needs.variants


def test_libraries_take_the_place_of_attention(tmp_path: Path) -> None:
    """Where FlashInfer serves the shape: of all of it, or of prompts alone by auto; triton needs none of it."""
    config = load(tmp_path, LLAMA, head_dim=64)

    def needs(backend: Any) -> KernelNeeds:
        return find_needs(config, EngineSettings(model_path="", device="cuda", attention_backend=backend), DTYPE)

    flashinfer, auto, triton = needs("flashinfer"), needs("auto"), needs("triton")
    assert [str(name) for name in flashinfer.libraries] == ["fa2_bf16_bf16_d64", "fa3_bf16_bf16_d64"]
    assert [str(name) for name in auto.libraries] == ["fa3_bf16_bf16_d64"]
    assert triton.libraries == ()
    assert not kernel_names(flashinfer) & {"decode.split", "decode.merge", "prefill.causal"}
    assert auto.variants > flashinfer.variants
    assert kernel_names(triton) - kernel_names(auto) == {"prefill.causal"}
    assert kernel_names(flashinfer) - kernel_names(triton) == {"contexts.gather"}


@pytest.mark.parametrize("drafts", [False, True], ids=["plain", "drafts"])
def test_chunks_over_e4m3_may_be_anybodys(drafts: bool, tmp_path: Path) -> None:
    """Gathered for the library of queries in 16 bits, or by our own kernel: both are there."""
    given: dict[str, Any] = {}
    if drafts:
        given = SPECULATION | {"speculative_draft_model_path": str(write_head(tmp_path / "head"))}
    config = replace(load_model_config(write_target(tmp_path / "target")), head_dim=64)
    settings = EngineSettings(
        model_path="", device="cuda", kv_cache_dtype="fp8_e4m3", **given | {"attention_backend": "auto"}
    )
    needs = find_needs(config, settings, DTYPE)
    assert [str(name) for name in needs.libraries] == ["fa3_bf16_bf16_d64"]
    gathering = {v for v in needs.variants if v.kernel == "contexts.gather"}
    assert len(gathering) == 1
    assert dict(next(iter(gathering)).constants)["SCALED"] is True
    assert "prefill.causal" in kernel_names(needs)


def test_a_shape_that_no_library_serves_falls_to_our_kernels_or_is_refused(tmp_path: Path) -> None:
    """By auto it does; whoever asks for FlashInfer is told."""
    config = load(tmp_path, LLAMA, head_dim=96)
    auto = find_needs(config, EngineSettings(model_path="", device="cuda"), DTYPE)
    assert auto.libraries == ()
    assert "prefill.causal" in {variant.kernel for variant in auto.variants}
    with pytest.raises(EngineMisconfigured, match="head sizes"):
        find_needs(config, EngineSettings(model_path="", device="cuda", attention_backend="flashinfer"), DTYPE)


def test_a_tensor_that_would_not_be_aligned_is_found_without_a_device() -> None:
    """The place of a view in its memory is known on any device."""
    view = torch.empty(64, dtype=DTYPE, device="meta")[4:]
    with pytest.raises(ValueError, match=r"aligned to 16 bytes, found .* at 8"):
        RecordingLauncher().launch("norm.add_rms_norm", (1, 1, 1), (view,), {}, Options())


def test_a_tensor_that_was_expanded_is_found_without_a_device() -> None:
    """One row is expanded and flattened without a copy, two are not: a kernel would read behind the one."""
    column = torch.empty(1, 1, dtype=torch.int32, device="meta")
    with pytest.raises(ValueError, match="expanded"):
        RecordingLauncher().launch("norm.add_rms_norm", (1, 1, 1), (column.expand(-1, 4).flatten(),), {}, Options())
    RecordingLauncher().launch("norm.add_rms_norm", (1, 1, 1), (column.repeat(1, 4).flatten(),), {}, Options())


def test_finding_needs_imports_no_compiler(tmp_path: Path) -> None:
    """Some of torch's shape functions import its compiler, which looks for a user and a folder for its cache: a confined engine
    has neither."""
    shape = LLAMA | {"architectures": ["Qwen2ForCausalLM"], "hidden_size": 64, "head_dim": 64}
    (tmp_path / "config.json").write_text(json.dumps(shape))
    target, head = write_target(tmp_path / "target"), write_head(tmp_path / "head")
    program = f"""
import sys
from pathlib import Path
import torch
from runtime.runner.kernel_needs import find_needs
from runtime.runner.building import apply_quantization, context_length_of
from runtime.settings import EngineSettings
from runtime.weights.config import load_model_config
settings = EngineSettings(model_path="", device="cuda", attention_backend="triton", cuda_graph_max_bs=20, kv_cache_dtype="fp8_e4m3")
config = load_model_config(Path({str(tmp_path)!r}))
for quantization in ("auto", "fp8"):
    assert find_needs(apply_quantization(config, quantization), settings, torch.bfloat16).variants
drafting = EngineSettings(
    model_path="", device="cuda", attention_backend="triton", cuda_graph_max_bs=2, max_running_requests=3,
    speculative_algorithm="EAGLE3", speculative_draft_model_path={str(head)!r},
)
assert find_needs(load_model_config(Path({str(target)!r})), drafting, torch.bfloat16).variants
print([name for name in ("torch._dynamo", "torch._inductor", "triton") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
