"""A KV cache in e4m3 on a Hopper GPU: what is written, attention over it, and engines on it beside their emulation on a CPU."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from runtime.attention.beside import SideStream
from runtime.attention.combined import CombinedAttention
from runtime.attention.flashinfer import contexts
from runtime.attention.flashinfer.attention import build_flashinfer_attention
from runtime.attention.flashinfer.calls import Cache
from runtime.attention.flashinfer.contexts import GatheredWork
from runtime.attention.flashinfer.libraries import TYPE_NAMES, LibraryName
from runtime.attention.pages import copy_pages, to_e4m3
from runtime.batch import Float32
from runtime.errors import KernelMissing
from runtime.kernels.launcher import JitLauncher
from runtime.kernels.libraries import FolderLibraries
from runtime.kernels.rotary import rotate_and_store
from runtime.layers.quantized import E4M3
from runtime.request import GenerationRequest
from runtime.runner.building import build_runner
from runtime.runner.device_building import build_device_runner
from runtime.runner.device_runner import DeviceRunner
from runtime.runner.kernel_choice import choose_kernels
from runtime.runner.torch_runner import TorchRunner
from runtime.settings import EngineSettings
from runtime.weights.config import load_model_config
from tests.support.attention_steps import worst_row_error
from tests.support.engine_runs import ask, build_engine, run_all
from tests.support.greedy_ties import assert_equal_up_to_ties
from tests.support.kernel_checks import TOLERANCES, Attention, Inputs, check_attention, check_rotary
from tests.support.next_token import Text, distance, score_at_once, score_by_steps
from tests.support.random_models import VOCAB_SIZE, write_random_model
from tests.support.step_batches import Chunk, step_batch

pytestmark = pytest.mark.gpu

BF16 = TOLERANCES[torch.bfloat16]
TIE_DISTANCES = 6
"""A tie: the reference's log-probabilities differ by no more than so many times what rounding makes of them (`Emulation`). That
is up to 6 nats with FP8 weights, where a token that follows from anything but its own context is behind by 17 in the mean."""
NUM_TOKENS = 32
MODES = pytest.mark.parametrize(
    ("dtype", "pdl"), [(torch.bfloat16, True), (torch.float16, False)], ids=["bf16-pdl", "fp16"]
)
SHAPES = pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim"), [(32, 8, 128), (4, 2, 64), (16, 8, 256), (8, 8, 96), (64, 8, 128)]
)


def store(values: Tensor, scales: Tensor) -> Tensor:
    """Values [rows, 2, 16] as one head's keys and values, written by the kernel without rotation: [rows, 2, 16] e4m3."""
    rows = len(values)
    pages = torch.zeros(rows // 16 + 2, 2, 16, 1, 16, dtype=E4M3, device="cuda")
    qkv = torch.cat((values[:, :1], values), dim=1).flatten(1).contiguous()
    slots = torch.arange(16, 16 + rows, device="cuda")
    ones, zeros = torch.ones(4, 16, device="cuda"), torch.zeros(4, 16, device="cuda")
    query = torch.empty(rows, 1, 16, dtype=values.dtype, device="cuda")
    positions = torch.zeros(rows, dtype=torch.int64, device="cuda")
    rotate_and_store(
        qkv, positions, slots, ones.to(values.dtype), zeros.to(values.dtype), pages, query=query, launcher=JitLauncher(),
        scales=scales,
    )  # fmt: skip
    return pages.transpose(1, 2)[:, :, :, 0].flatten(0, 1)[16 : 16 + rows]


def test_writing_rounds_and_cuts_off_as_the_reference() -> None:
    """Every byte, over all magnitudes: what is too large is cut off, infinities and NaN are NaN, and zeros keep their sign."""
    random = torch.Generator("cuda").manual_seed(0)
    values = torch.randn(4096, 2, 16, generator=random, device="cuda")
    values *= torch.exp2(torch.randint(-20, 20, values.shape, generator=random, device="cuda").float())
    values[0, 1, :6] = torch.tensor([torch.inf, -torch.inf, torch.nan, 0.0, -0.0, 1e30], device="cuda")
    scales = torch.tensor([0.37, 0.011, 0.0, 0.0], device="cuda")
    stored = store(values, scales)
    for part in (0, 1):
        wanted = to_e4m3(values[:, part], scales[part])
        kept = ~wanted.float().isnan()
        assert torch.equal(~stored[:, part].float().isnan(), kept)
        assert torch.equal(stored[:, part].view(torch.uint8)[kept], wanted.view(torch.uint8)[kept])


@MODES
@pytest.mark.parametrize("norm", [False, True], ids=["", "norm"])
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(32, 8, 128), (16, 2, 256), (6, 6, 96)])
def test_rotated_keys_in_e4m3(
    heads: int, kv_heads: int, head_dim: int, norm: bool, dtype: torch.dtype, pdl: bool
) -> None:
    """3 bits of mantissa, rounded: a relative error below 1/32 in the mean."""
    inputs = Inputs("cuda", dtype, 0)
    error = check_rotary(inputs, 300, heads, kv_heads, head_dim, norm=norm, cache_dtype=E4M3, pdl=pdl)
    assert error < 1 / 32


@MODES
@SHAPES
@pytest.mark.parametrize(("sequences", "window"), [(1, None), (5, None), (40, None), (5, 100)])
def test_decodes(
    sequences: int, window: int | None, heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype, pdl: bool
) -> None:
    """Lengths from 1 to 3000, one part and many; NaN wherever no token is. The reference reads the same rounded cache."""
    inputs = Inputs("cuda", dtype, sequences)
    contexts = [1, 3000, 16, 1025, 64][:sequences] + inputs.integers(900, max(0, sequences - 5)).add(1).tolist()
    case = Attention(
        inputs, contexts, [1] * sequences, heads=heads, kv_heads=kv_heads, head_dim=head_dim, cache_dtype=E4M3
    )
    assert check_attention(case, window=window, pdl=pdl) < TOLERANCES[dtype]


@MODES
@SHAPES
@pytest.mark.parametrize("window", [None, 100])
def test_prompts(window: int | None, heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype, pdl: bool) -> None:
    """Decodes, whole prompts and chunks after a cached prefix in one step."""
    case = Attention(
        Inputs("cuda", dtype, 0), [700, 33, 1000, 1500, 20, 64], [1, 1, 1000, 300, 2, 64],
        heads=heads, kv_heads=kv_heads, head_dim=head_dim, cache_dtype=E4M3,
    )  # fmt: skip
    assert check_attention(case, window=window, pdl=pdl) < TOLERANCES[dtype]


def need(
    libraries: FolderLibraries, head_dim: int, dtype: torch.dtype = torch.bfloat16, *, windowed: bool = False
) -> None:
    """Skip, with the library's name, where FlashAttention 3 was not compiled for that."""
    name = LibraryName("fa3", TYPE_NAMES[dtype], TYPE_NAMES[dtype], head_dim, windowed)
    try:
        libraries.function(str(name), "plan")
    except KernelMissing as error:
        pytest.skip(str(error))


@pytest.fixture
def gathered(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Contexts are gathered also where it does not pay; how many sequences they were of, each time that a layer's were."""
    monkeypatch.setattr(contexts, "_ROWS_FOR_E4M3", 0)
    monkeypatch.setattr(contexts, "_PAIRS_FOR_LAUNCH", -1)
    run, noted = GatheredWork.run, []

    def noting(work: GatheredWork, cache: Cache, query: Tensor, out: Tensor) -> None:
        assert cache.keys.dtype == E4M3
        noted.append(work.span.num_sequences)
        run(work, cache, query, out)

    monkeypatch.setattr(GatheredWork, "run", noting)
    return noted


@pytest.mark.parametrize(
    ("window", "heads", "kv_heads", "head_dim", "dtype"),
    [
        *((None, *heads, torch.bfloat16) for heads in ((32, 8, 128), (4, 2, 64), (16, 8, 256), (64, 8, 128))),
        (None, 32, 8, 128, torch.float16),
        (100, 32, 8, 128, torch.bfloat16),
        (100, 64, 8, 128, torch.bfloat16),
    ],
)
def test_prompts_gathered_for_flashattention(
    window: int | None, heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype, libraries: FolderLibraries,
    gathered: list[int], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The same step, its decodes by our kernel beside them; at once, and in groups of one and of three contexts."""
    need(libraries, head_dim, dtype)
    if window is not None:
        need(libraries, head_dim, dtype, windowed=True)
    case = Attention(
        Inputs("cuda", dtype, 0), [700, 33, 1000, 1500, 20, 64], [1, 1, 1000, 300, 2, 64],
        heads=heads, kv_heads=kv_heads, head_dim=head_dim, cache_dtype=E4M3,
    )  # fmt: skip
    expected = case.reference(window).cpu()
    for largest_pages in (contexts.LARGEST_PAGES, 128):
        monkeypatch.setattr(contexts, "LARGEST_PAGES", largest_pages)
        chunks = build_flashinfer_attention(
            case.pages, libraries, JitLauncher(), num_heads=heads, query_dtype=dtype, layer_windows=[None, window],
            max_sequences=8, max_context_length=1920, decode=None, scales=case.scales,
        )  # fmt: skip
        attention = CombinedAttention(case.backend(window), chunks, SideStream(torch.device("cuda")))
        out = torch.full_like(case.query, torch.nan)
        attention.plan(case.host, case.tables).attend(1, case.query, out)
        assert worst_row_error(out, expected) < TOLERANCES[dtype]
    assert gathered == [4, 1, 3]


@pytest.mark.parametrize("size", [1e-6, 1e5])
@pytest.mark.parametrize("queries", [[1, 1], [1, 40]])
def test_queries_of_any_size(queries: list[int], size: float) -> None:
    """Products are in fp16; queries beyond its range, or below it, lose nothing."""
    case = Attention(
        Inputs("cuda", torch.bfloat16, 1), [300, 90], queries, heads=32, kv_heads=8, head_dim=128, cache_dtype=E4M3
    )
    case.query *= size
    assert check_attention(case) < BF16


def test_nan_in_a_page_stays_in_its_sequence() -> None:
    """A NaN that a sequence wrote is in its own result and in nobody else's."""
    case = Attention(
        Inputs("cuda", torch.bfloat16, 1), [300, 90], [1, 1], heads=32, kv_heads=8, head_dim=128, cache_dtype=E4M3
    )
    case.pages[1, int(case.tables.page_ids[3]), 0, 5] = torch.nan
    out = torch.empty_like(case.query)
    case.backend().plan(case.host, case.tables).attend(1, case.query, out)
    assert out[0].isnan().any()
    assert out[1].isfinite().all()


def test_pages_are_copied_byte_by_byte() -> None:
    """For forks, NaN included; torch's own indexing does not know e4m3 everywhere."""
    pages = torch.randint(256, (2, 6, 2, 16, 2, 32), dtype=torch.uint8, device="cuda").view(E4M3)
    before = pages.clone()
    copy_pages(pages, torch.tensor([[1, 4], [2, 5]], device="cuda"))
    assert torch.equal(pages[:, [4, 5]].view(torch.uint8), before[:, [1, 2]].view(torch.uint8))
    assert torch.equal(pages[:, :4].view(torch.uint8), before[:, :4].view(torch.uint8))


def prompts() -> list[list[int]]:
    """Of many lengths, some with a common beginning."""
    ids = np.random.default_rng(3).integers(3, VOCAB_SIZE, 4000).tolist()
    own = [ids[7 * index : 7 * index + length] for index, length in enumerate((1, 5, 16, 17, 64, 129, 300, 513))]
    return own + [ids[:256] + ids[1000 + index : 1030 + index] for index in range(4)]


def greedy(first_id: int = 1) -> list[GenerationRequest]:
    return [
        ask(first_id + index, prompt, max_tokens=NUM_TOKENS, temperature=0.0, ignore_eos=True)
        for index, prompt in enumerate(prompts())
    ]


TEXTS = [
    Text(prompt, np.random.default_rng(index).integers(3, VOCAB_SIZE, 16).tolist())
    for index, prompt in enumerate(prompts())
]
"""Given tokens, so that they do not depend on what a runner would choose."""


def build_device(folder: Path, **given: Any) -> DeviceRunner:
    settings = EngineSettings(
        model_path=str(folder), device="cuda", dtype="bfloat16", kv_cache_dtype="fp8_e4m3",
        **{
            "max_total_tokens": 16_384, "max_running_requests": 40, "chunked_prefill_size": 512,
            "attention_backend": "triton",
        } | given,
    )  # fmt: skip
    return build_device_runner(folder, settings, choose_kernels(settings, print), advance=lambda: None).runner


@pytest.fixture(scope="module", params=["llama-64", "llama-128", "qwen3-128"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name, head_dim = request.param.split("-")
    return write_random_model(tmp_path_factory.mktemp("model"), head_dim=int(head_dim), qwen3=name == "qwen3")


@pytest.fixture(scope="module")
def scales_path(folder: Path) -> Path:
    """Scales that differ by layer, and keys' from values'."""
    shape = json.loads((folder / "config.json").read_text())
    keys = [0.01 * (layer + 1) for layer in range(shape["num_hidden_layers"])]
    document = {"kv_cache": {"dtype": "float8_e4m3fn", "k_scale": keys, "v_scale": [2 * scale for scale in keys]}}
    path = folder.parent / f"{folder.name}-scales.json"
    path.write_text(json.dumps(document))
    return path


@dataclass(frozen=True)
class Emulation:
    """What a CPU makes of the same weights and scales, in float32; and how far rounding alone leads from there."""

    quantization: str
    reference: TorchRunner
    answers: list[list[int]]
    """Greedy, to `prompts`."""
    scores: list[Float32]
    """At each token of `TEXTS`."""
    rounding: float
    """`distance` of the scores in bfloat16. Where a number differs in its last bit, another of e4m3 may be the nearest, and then it
    differs by a sixteenth; with FP8 weights such differences make others at every product, in the end up to an eighth of the
    logits' spread."""


@pytest.fixture(scope="module", params=["auto", "fp8"])
def emulation(request: pytest.FixtureRequest, folder: Path, scales_path: Path) -> Emulation:
    reference, rounded = (
        build_runner(
            folder, num_pages=400, dtype=dtype, num_threads=4, quantization=request.param, kv_cache_dtype="fp8_e4m3",
            quantization_param_path=str(scales_path),
        )
        for dtype in ("float32", "bfloat16")
    )  # fmt: skip
    answers = run_all(build_engine(reference, eos_token_ids=[2], context_length=2048), greedy())
    scores = [score_at_once(reference, text) for text in TEXTS]
    return Emulation(
        request.param,
        reference,
        [answers[1 + index, 0].tokens for index in range(len(prompts()))],
        scores,
        distance([score_at_once(rounded, text) for text in TEXTS], scores),
    )


@pytest.mark.parametrize(
    "given",
    [{"cuda_graph_max_bs": 16}, {"cuda_graph_max_bs": 0}, {"cuda_graph_max_bs": 16, "chunked_prefill_size": 33}],
    ids=["graphs", "no graphs", "small chunks"],
)
def test_probabilities_are_the_emulations(
    folder: Path, scales_path: Path, emulation: Emulation, given: dict[str, Any]
) -> None:
    """At given tokens, prefilled and decoded, over the whole vocabulary: no further from the emulation than rounding leads."""
    runner = build_device(
        folder, quantization=emulation.quantization, quantization_param_path=str(scales_path), **given
    )
    scores = score_by_steps(runner, TEXTS, chunk_size=given.get("chunked_prefill_size", 512))
    found = distance(scores, emulation.scores)
    print(f"weights {emulation.quantization}, {given}: {found:.3f} nats, {emulation.rounding:.3f} by rounding to bf16")
    assert found < 1.2 * emulation.rounding


@pytest.mark.parametrize("chunk_size", [512, 33])
def test_probabilities_of_gathered_prompts_are_the_emulations(
    folder: Path,
    scales_path: Path,
    emulation: Emulation,
    chunk_size: int,
    libraries: FolderLibraries,
    gathered: list[int],
) -> None:
    """The same with chunks by FlashAttention 3, which takes no e4m3."""
    need(libraries, load_model_config(folder).head_dim)
    runner = build_device(
        folder, quantization=emulation.quantization, quantization_param_path=str(scales_path), attention_backend="auto",
        cuda_graph_max_bs=16, chunked_prefill_size=chunk_size, kernels_path=os.environ["CASEMATE_TEST_KERNELS"],
    )  # fmt: skip
    scores = score_by_steps(runner, TEXTS, chunk_size=chunk_size)
    assert gathered
    found = distance(scores, emulation.scores)
    print(f"weights {emulation.quantization}, gathered: {found:.3f} nats, {emulation.rounding:.3f} by rounding to bf16")
    assert found < 1.2 * emulation.rounding


@pytest.mark.parametrize(
    "given",
    [
        {"cuda_graph_max_bs": 16},
        {"cuda_graph_max_bs": 0},
        {"cuda_graph_max_bs": 3, "chunked_prefill_size": 33},
        {"cuda_graph_max_bs": 16, "attention_backend": "auto"},
    ],
    ids=["graphs", "no graphs", "small graphs, small chunks", "gathered"],
)
def test_greedy_texts_are_the_emulations(
    folder: Path, scales_path: Path, emulation: Emulation, given: dict[str, Any], libraries: FolderLibraries,
    gathered: list[int],
) -> None:  # fmt: skip
    """With weights in bf16 and in FP8, cold and with a warm cache, with overlap and without, up to ties."""
    if "attention_backend" in given:
        need(libraries, load_model_config(folder).head_dim)
    runner = build_device(
        folder, quantization=emulation.quantization, quantization_param_path=str(scales_path),
        kernels_path=os.environ["CASEMATE_TEST_KERNELS"], **given,
    )  # fmt: skip
    agreed = total = 0
    for overlap in (True, False):
        engine = build_engine(
            runner, eos_token_ids=[2], context_length=2048, overlap_schedule=overlap, max_running_requests=40,
            chunked_prefill_size=given.get("chunked_prefill_size", 512),
        )  # fmt: skip
        for first_id in (1, 101):
            answers = run_all(engine, greedy(first_id))
            for index, (prompt, theirs) in enumerate(zip(prompts(), emulation.answers, strict=True)):
                mine, max_gap = answers[first_id + index, 0].tokens, TIE_DISTANCES * emulation.rounding
                agreed += assert_equal_up_to_ties(emulation.reference, prompt, mine, theirs, max_gap)
                total += NUM_TOKENS
    assert bool(gathered) == ("attention_backend" in given)
    print(f"weights {emulation.quantization}, cache e4m3, {given}: {agreed} of {total} tokens before a tie")
    assert agreed > total * (0.2 if emulation.quantization == "auto" else 0.05)


def test_the_cache_holds_twice_the_tokens(folder: Path, scales_path: Path) -> None:
    """In the same memory, and what is said of it at start counts its pages so."""
    sizes = {}
    for kind in ("auto", "fp8_e4m3"):
        settings = EngineSettings(
            model_path=str(folder), device="cuda", dtype="bfloat16", kv_cache_dtype=kind, attention_backend="triton",
            mem_fraction_static=0.05, max_running_requests=8, chunked_prefill_size=512,
            quantization_param_path=str(scales_path) if kind == "fp8_e4m3" else "",
        )  # fmt: skip
        built = build_device_runner(folder, settings, choose_kernels(settings, print), advance=lambda: None)
        sizes[kind] = built.runner.num_pages
        assert built.memory.page_bytes * built.runner.num_pages == built.runner.pages.nbytes
        del built
        torch.cuda.empty_cache()
    assert sizes["fp8_e4m3"] == pytest.approx(2 * sizes["auto"], rel=0.01)


@pytest.mark.parametrize("largest_graph", [8, 0])
def test_a_broken_sequence_does_not_touch_its_neighbours(folder: Path, scales_path: Path, largest_graph: int) -> None:
    """NaN in one sequence's pages flags that sequence alone, in a graph and outside; so does NaN past a context's end."""
    runner = build_device(
        folder, cuda_graph_max_bs=largest_graph, piecewise_cuda_graph_max_tokens=64 if largest_graph else 0,
        quantization_param_path=str(scales_path),
    )  # fmt: skip
    with torch.inference_mode():
        runner.pages.fill_(torch.nan)
    prompt = prompts()[4]
    chunks = [Chunk(prompt, 0, [1, 2, 3, 4, 5]), Chunk(prompt, 0, [6, 7, 8, 9, 10])]
    assert runner.launch(step_batch(chunks)).result().is_finite.all()
    with torch.inference_mode():
        runner.pages[:, 2].fill_(torch.nan)
    decodes = [Chunk([5], len(prompt), [1, 2, 3, 4, 5]), Chunk([5], len(prompt), [6, 7, 8, 9, 10])]
    result = runner.launch(step_batch(decodes)).result()
    assert result.is_finite.tolist() == [False, True]
    assert result.captured_size == (2 if largest_graph else 0)
