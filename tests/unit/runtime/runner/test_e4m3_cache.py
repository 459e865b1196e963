"""A KV cache in e4m3: where its scales come from, and steps, graphs and engines over it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runtime.errors import EngineMisconfigured
from runtime.layers.quantized import E4M3
from runtime.request import GenerationRequest
from runtime.runner.attention_choice import choose_attention
from runtime.runner.building import build_runner
from runtime.runner.cache_choice import CacheFormat
from runtime.runner.torch_runner import TorchRunner
from runtime.settings import EngineSettings
from runtime.weights.config import load_model_config
from tests.support.device_runners import build_plain_device
from tests.support.engine_runs import ask, build_engine, run_all
from tests.support.quantized_checkpoints import cache_scale_tensors, plain_tensors, write_checkpoint
from tests.support.step_batches import Chunk, sampling_batch, step_batch
from tests.unit.runtime.runner.conftest import LLAMA, SLIDING_QWEN

CPU = torch.device("cpu")
KEYS, VALUES = [0.004, 0.003], [0.002, 0.005]
WriteFolder = Callable[[dict[str, Any]], Path]


def write_scales(folder: Path, keys: list[float] = KEYS, values: list[float] = VALUES) -> str:
    path = folder / "scales.json"
    path.write_text(json.dumps({"kv_cache": {"dtype": "float8_e4m3fn", "k_scale": keys, "v_scale": values}}))
    return str(path)


def build(folder: Path, **given: Any) -> TorchRunner:
    return build_runner(folder, **({"num_pages": 60, "load_format": "dummy", "kv_cache_dtype": "fp8_e4m3"} | given))


def test_scales_of_a_file_come_before_the_checkpoints(tmp_path: Path) -> None:
    """Then the checkpoint's, then 1, which is said; each cache has a name of its own."""
    folder = write_checkpoint(tmp_path, plain_tensors() | cache_scale_tensors("k_scale", "v_scale"), None)
    path = write_scales(tmp_path)
    by_file = build(folder, load_format="auto", quantization_param_path=path).cache
    by_checkpoint = build(folder, load_format="auto").cache
    by_nothing = build(folder).cache
    assert by_file.scales is not None
    assert by_checkpoint.scales is not None
    assert by_nothing.scales is not None
    assert by_file.scales[:, :2].flatten().tolist() == pytest.approx([0.004, 0.002, 0.003, 0.005])
    assert by_checkpoint.scales[:, :2].tolist() == [[0.5, 0.25], [1.5, 0.75]]
    assert by_nothing.scales.tolist() == [[1.0] * 4] * 2
    formats = (by_file, by_checkpoint, by_nothing)
    assert [cache.origin for cache in formats] == ["file", "checkpoint", "none"]
    assert [cache.is_unscaled for cache in formats] == [False, False, True]
    assert len({cache.name for cache in formats}) == 3
    assert all(cache.name.startswith("fp8_e4m3 ") for cache in formats)


def test_the_models_own_dtype_has_no_scales(model_folder: WriteFolder) -> None:
    """And no name, so that nothing changes for those who do not ask for e4m3."""
    cache = build(model_folder(LLAMA), kv_cache_dtype="auto").cache
    assert cache == CacheFormat(torch.float32)
    assert (cache.name, cache.is_unscaled) == ("", False)


def test_settings_that_contradict_each_other_are_refused(model_folder: WriteFolder) -> None:
    """A file of scales without e4m3, FlashInfer with it, another name of a dtype."""
    folder = model_folder(LLAMA | {"head_dim": 64})
    with pytest.raises(EngineMisconfigured, match="quantization_param_path: has a meaning only with kv_cache_dtype"):
        build(folder, kv_cache_dtype="auto", quantization_param_path=write_scales(folder))
    with pytest.raises(EngineMisconfigured, match="kv_cache_dtype: expected auto or fp8_e4m3, found 'fp8'"):
        build(folder, kv_cache_dtype="fp8")
    config = load_model_config(folder)
    settings = EngineSettings(model_path="", device="cuda", kv_cache_dtype="fp8_e4m3", attention_backend="flashinfer")
    with pytest.raises(EngineMisconfigured, match=r"expected a cache of torch.bfloat16, found torch.float8_e4m3fn"):
        choose_attention(settings, config, torch.bfloat16)


def test_pages_take_half_of_bf16(model_folder: WriteFolder) -> None:
    """Bytes of the cache, by dtype."""
    folder = model_folder(LLAMA)
    sizes = {kind: build(folder, kv_cache_dtype=kind, dtype="bfloat16").pages.nbytes for kind in ("auto", "fp8_e4m3")}
    assert sizes["auto"] == 2 * sizes["fp8_e4m3"]


@pytest.fixture(params=[LLAMA, SLIDING_QWEN], ids=["llama", "sliding-qwen"])
def folder(request: pytest.FixtureRequest, model_folder: WriteFolder) -> Path:
    return model_folder(request.param)


def test_graphs_over_e4m3_give_what_the_reference_gives(folder: Path) -> None:
    """Prefill, decodes in a graph, a mixed step; float32 gives something else. Where a key differs in its last bit, another e4m3
    number may be the nearest."""
    path = write_scales(folder)
    reference = build(folder, quantization_param_path=path)
    device = build_plain_device(folder, num_pages=60, dummy=True, cache=reference.cache).runner
    assert device.pages.dtype == reference.pages.dtype == E4M3
    ids = np.random.default_rng(0).integers(0, 331, 60).tolist()
    asked = sampling_batch(3, num_logprobs=20)
    steps = [
        step_batch([Chunk(ids[:9], 0, [1]), Chunk(ids[:30], 0, [2, 3]), Chunk(ids[:3], 0, [4])], asked),
        step_batch([Chunk([0], at, pages, previous_row=row) for row, (at, pages) in enumerate(
            [(9, [1]), (30, [2, 3]), (3, [4])])], asked),
        step_batch([Chunk([5], 10, [1]), Chunk(ids[:40], 0, [5, 6, 7]), Chunk([8], 4, [4])], asked),
    ]  # fmt: skip
    plain = build(folder, kv_cache_dtype="auto").launch(steps[0]).result().logprobs
    for index, batch in enumerate(steps):
        given, expected = device.launch(batch).result(), reference.launch(batch).result()
        assert given.token_ids.tolist() == expected.token_ids.tolist()
        assert given.logprobs is not None
        assert expected.logprobs is not None
        np.testing.assert_allclose(given.logprobs.top_values, expected.logprobs.top_values, atol=1e-4)
        if index == 0:
            assert plain is not None
            assert np.abs(plain.top_values - expected.logprobs.top_values).max() > 2e-4


def requests(first_id: int) -> list[GenerationRequest]:
    """Forks, a shared prefix, and a short prompt with a long answer."""
    ids = np.random.default_rng(1).integers(3, 331, 80).tolist()
    return [
        ask(first_id, ids[:70], max_tokens=12, temperature=0.8, seed=5, n=3, ignore_eos=True),
        ask(first_id + 1, [*ids[:70], 9, 8], max_tokens=12, temperature=0.0, ignore_eos=True),
        ask(first_id + 2, ids[:5], max_tokens=30, temperature=0.0, ignore_eos=True),
    ]


def texts(runner: TorchRunner, **settings: Any) -> list[list[list[int]]]:
    """Of the requests' choices in order, with a cold prefix cache and with a warm one."""
    engine = build_engine(runner, eos_token_ids=[2], context_length=128, **settings)
    return [[answer.tokens for _, answer in sorted(run_all(engine, requests(first)).items())] for first in (1, 11)]


def test_texts_over_e4m3_are_the_same_however_work_is_cut(folder: Path) -> None:
    """To the bit on a CPU: chunks, overlap, prefix cache, forks whose pages are copied, retraction."""
    path = write_scales(folder)
    cold, warm = texts(build(folder, quantization_param_path=path), chunked_prefill_size=512)
    assert cold == warm
    for settings in (
        {"chunked_prefill_size": 17, "overlap_schedule": False},
        {"chunked_prefill_size": 33, "disable_radix_cache": True},
    ):
        assert texts(build(folder, quantization_param_path=path), **settings) == [cold, cold]
    assert texts(build(folder, quantization_param_path=path, num_pages=12)) == [cold, cold]
