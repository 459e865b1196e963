"""What verifying adds to loading a checkpoint from the page cache: `python -m tests.bench.model_loading`.

The product's readers, from files of Llama 3.1 8B's shape in memory to `--devices`: `cuda`, `memory` (host memory, read as for a
GPU), `cpu` (as a model on the CPU is loaded). Nothing hashed, and each of `--ways`: BLAKE3 on the GPU, BLAKE3 and SHA-256 by the
cores; for each number of shards and of cores, the most cores first; the median of `--repeats`, fewer where one takes long (then
their number is shown), and no new row after `--seconds`. The parameters are there before, and pinned memory after the first time:
what is measured is reading, hashing and copying. On a GPU the kernels alone come first; `--bundle` takes them from a frozen bundle,
which costs less.

Two ways go through the stewards' evidence: the model is imported into a store with a SHA-256 manifest, approved by two and
promoted; what is measured is all that verifying adds to an engine's load, from the role file to the comparison of what was read.
`approved` is with load digests, `approved-sha256` without them, as under `fips = true`.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

import runtime.weights.device_loading as device_loading
from runtime.kernels.bundle import load_bundle
from runtime.kernels.digest import NODE_WORDS, DigestKernels
from runtime.kernels.frozen import load_frozen_launcher
from runtime.kernels.launcher import JitLauncher
from runtime.kernels.recording import RecordingLauncher
from runtime.weights.checkpoint import open_checkpoint
from runtime.weights.config import ModelConfig, load_model_config
from runtime.weights.file_check import FileCheck, digests_of
from runtime.weights.layout import parameter_shapes
from runtime.weights.loading import load_weights
from runtime.weights.placing import Placing
from security.model_signing.algorithms import Hasher, new_hasher
from tests.bench.promoted_model import Promoted, promote

HIDDEN, INNER, NUM_HEADS, NUM_KV_HEADS, HEAD_DIM = 4096, 14_336, 32, 8, 128
NUM_LAYERS, VOCAB = 32, 128_256
SLOW_S = 2.0
WAYS = ("gpu", "blake3", "sha256", "approved", "approved-sha256")


class NoKernels(DigestKernels):
    """They compute nothing: the reader by itself."""

    def hash_groups(
        self, content: torch.Tensor, size_bytes: int, first_group: int, out: torch.Tensor, *, is_whole: bool
    ) -> None:
        """Nothing."""

    def merge(self, nodes: torch.Tensor) -> torch.Tensor:
        """Of nothing."""
        return nodes[0]


class Unhashed:
    """A digest that looks at nothing."""

    def update(self, data: object, /) -> None:
        """Nothing."""

    def hexdigest(self) -> str:
        """Of nothing."""
        return "0" * 64


def check_of(name: str) -> FileCheck:
    """A check that takes whatever it is told, by an algorithm or by none."""

    algorithm = "blake3" if name in ("gpu", "none") else name

    def begin(num_threads: int) -> Hasher:
        return Unhashed() if name == "none" else new_hasher(algorithm, num_threads=num_threads)

    return FileCheck(lambda _digests: None, begin, algorithm)


def tensor_shapes(layers: int, vocab: int) -> dict[str, tuple[int, ...]]:
    """Of a Llama."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocab, HIDDEN),
        "lm_head.weight": (vocab, HIDDEN),
    }
    keys = NUM_KV_HEADS * HEAD_DIM
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        shapes |= {f"{prefix}self_attn.{name}_proj.weight": (HIDDEN, HIDDEN) for name in "qo"}
        shapes |= {f"{prefix}self_attn.{name}_proj.weight": (keys, HIDDEN) for name in "kv"}
        shapes |= {f"{prefix}mlp.{name}_proj.weight": (INNER, HIDDEN) for name in ("gate", "up")}
        shapes[f"{prefix}mlp.down_proj.weight"] = (HIDDEN, INNER)
        shapes |= {f"{prefix}{name}_layernorm.weight": (HIDDEN,) for name in ("input", "post_attention")}
    return shapes | {"model.norm.weight": (HIDDEN,)}


def write_shard(path: Path, shapes: dict[str, tuple[int, ...]], noise: bytes) -> None:
    """Random bytes, the same ones again and again, as bfloat16."""
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": (begin, end)}
    content = json.dumps(header).encode()
    content += b" " * (-len(content) % 8)
    with path.open("wb") as file:
        file.write(len(content).to_bytes(8, "little") + content)
        for start in range(0, end, len(noise)):
            file.write(noise[: end - start])


def write_checkpoint(folder: Path, layers: int, vocab: int, num_shards: int) -> None:
    """All files of a model."""
    folder.mkdir()
    shapes = tensor_shapes(layers, vocab)
    names, noise = list(shapes), os.urandom(1 << 24)
    weight_map = {name: f"model-{index * num_shards // len(names):05}.safetensors" for index, name in enumerate(names)}
    with ThreadPoolExecutor() as pool:
        for shard in sorted(set(weight_map.values())):
            own = {name: shapes[name] for name in names if weight_map[name] == shard}
            pool.submit(write_shard, folder / shard, own, noise)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    document = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocab, "hidden_size": HIDDEN,
        "intermediate_size": INNER, "num_hidden_layers": layers, "num_attention_heads": NUM_HEADS,
        "num_key_value_heads": NUM_KV_HEADS, "head_dim": HEAD_DIM, "hidden_act": "silu", "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5, "rope_theta": 10_000.0, "tie_word_embeddings": False, "eos_token_id": 2, "torch_dtype": "bfloat16",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(document))


def load_on_cpu(folder: Path, config: ModelConfig, check: FileCheck) -> None:
    """As an engine on the CPU does, allocation included."""
    load_weights(folder, config, device=torch.device("cpu"), dtype=torch.bfloat16, verify=check)


def load_to_device(
    folder: Path,
    config: ModelConfig,
    parameters: dict[str, torch.Tensor],
    check: FileCheck,
    kernels: DigestKernels | None,
) -> dict[str, str]:
    """All weights of a checkpoint into tensors that are there already; the digests."""
    with open_checkpoint(folder, config) as checkpoint:
        placing = Placing(checkpoint.places, parameters, torch.bfloat16)
        return device_loading.read_shards_to_device(
            checkpoint, placing, parameters["embedding.weight"], None, check, kernels=kernels
        )


def measure_kernels(kernels: DigestKernels) -> None:
    """Those of the tree, without anything beside them."""
    for mib in (2, 8, 32, 1024):
        content = torch.zeros(mib << 20, dtype=torch.uint8, device="cuda")
        nodes = torch.empty(kernels.count_groups(len(content)), NODE_WORDS, dtype=torch.int32, device="cuda")
        seconds = []
        for work in (
            lambda content=content, nodes=nodes: kernels.hash_groups(content, len(content), 0, nodes, is_whole=False),
            lambda nodes=nodes: kernels.merge(nodes),
        ):
            work()
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            for _ in range(20):
                work()
            end.record()
            end.synchronize()
            seconds.append(begin.elapsed_time(end) / 20e3)
        print(
            f"{mib:5} MiB: hashed in {seconds[0] * 1e6:7.1f} us, {len(content) / seconds[0] / 1e9:6.1f} GB/s; "
            f"{len(nodes)} nodes merged in {seconds[1] * 1e6:6.1f} us",
            flush=True,
        )


def median_of(work: Callable[[], None], repeats: int) -> tuple[float, int]:
    """Median seconds, and of how many; the first is not counted unless it is slow itself."""
    times: list[float] = []
    for index in range(repeats + 1):
        begin = time.perf_counter()
        work()
        seconds = time.perf_counter() - begin
        if index or seconds > SLOW_S:
            times.append(seconds)
        if sum(times) > SLOW_S:
            break
    return statistics.median(times), len(times)


@dataclass(frozen=True)
class Way:
    """One way to verify."""

    name: str
    check: Callable[[], FileCheck]
    """Made anew for each load: evidence is verified then."""
    kernels: DigestKernels | None = None


def ways_of(names: list[str], device: str, promoted: Promoted | None, kernels: DigestKernels | None) -> list[Way]:
    """First that which hashes nothing."""
    found = [Way("none", partial(check_of, "none"), NoKernels(RecordingLauncher()))]
    for name in names:
        if promoted is not None and name.startswith("approved"):
            found.append(Way(name, partial(promoted.check, with_load_digests=name == "approved"), kernels))
        elif name != "gpu" or device == "cuda":
            found.append(Way(name, partial(check_of, name), kernels if name == "gpu" else None))
    return found


def measure(device: str, folder: Path, num_cores: int, ways: list[Way], options: argparse.Namespace) -> None:
    """One row: each way, on the first so many cores that we have."""
    os.sched_setaffinity(0, options.cores[:num_cores])
    config = load_model_config(folder)
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    target = torch.device("cuda" if device == "cuda" else "cpu")
    parameters = {} if device == "cpu" else {
        name: torch.zeros(shape.shape, dtype=torch.bfloat16, device=target)
        for name, shape in parameter_shapes(config).items()
    }  # fmt: skip
    row, alone = f"{device:6} {len(list(folder.glob('*.safetensors'))):6} {num_cores:7}", 0.0
    for way in ways:

        def work(way: Way = way) -> None:
            check = way.check()
            if device == "cpu":
                load_on_cpu(folder, config, check)
            else:
                digests = load_to_device(folder, config, parameters, check, way.kernels)
                check.verify(digests_of(config.files, check) | digests)

        seconds, count = median_of(work, options.repeats)
        row += f"   {seconds:7.3f} s {size / seconds / 1e9:6.2f} GB/s"
        row += f" {seconds / alone - 1:+6.0%}" if alone else ""
        row += "" if count == options.repeats else f" ({count})"
        alone = alone or seconds
    print(row, flush=True)


def prepare(place: Path, shards: int, options: argparse.Namespace) -> tuple[Path, Promoted | None]:
    """Where the model lies, and its evidence if a way asks for it."""
    folder = place / f"download-{shards}"
    write_checkpoint(folder, options.layers, options.vocab, shards)
    if not any(way.startswith("approved") for way in options.ways):
        return folder, None
    promoted = promote(folder, place / f"state-{shards}")
    shutil.rmtree(folder)
    return promoted.model_path, promoted


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.model_loading", description=__doc__)
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--layers", type=int, default=NUM_LAYERS)
    parser.add_argument("--vocab", type=int, default=VOCAB)
    parser.add_argument("--devices", nargs="+", default=["cuda"] if torch.cuda.is_available() else ["memory"])
    parser.add_argument("--shards", type=int, nargs="+", default=[8, 1])
    parser.add_argument("--cores", type=int, nargs="+", dest="num_cores", default=[16, 8, 4, 2, 1])
    parser.add_argument("--ways", nargs="*", default=list(WAYS[:3]), choices=WAYS)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--piece-mib", type=int, default=device_loading.PIECE_BYTES >> 20)
    parser.add_argument("--window-mib", type=int, nargs="+", default=[device_loading.WINDOW_BYTES >> 20])
    parser.add_argument("--windows", type=int, default=device_loading.NUM_WINDOWS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=90.0)
    options = parser.parse_args()
    options.cores = sorted(os.sched_getaffinity(0))
    begin = time.perf_counter()
    device_loading.PIECE_BYTES, device_loading.NUM_WINDOWS = options.piece_mib << 20, options.windows
    torch.set_num_threads(1)  # Copies within host memory are on the threads that are counted.
    kernels = None
    if "cuda" in options.devices:
        launcher = load_frozen_launcher(load_bundle(options.bundle), 0) if options.bundle else JitLauncher()
        kernels = DigestKernels(launcher)
        measure_kernels(kernels)
    place = Path(tempfile.mkdtemp(prefix="model-", dir=options.dir))
    try:
        models = {shards: prepare(place, shards, options) for shards in options.shards}
        for window_mib in options.window_mib:
            device_loading.WINDOW_BYTES = window_mib << 20
            print(f"{options.windows} windows of {window_mib} MiB; nothing hashed, then {', '.join(options.ways)}")
            print("device shards   cores")
            for num_cores in sorted({min(each, len(options.cores)) for each in options.num_cores}, reverse=True):
                for folder, promoted in models.values():
                    for device in options.devices:
                        if time.perf_counter() - begin < options.seconds:
                            ways = ways_of(options.ways, device, promoted, kernels)
                            measure(device, folder, num_cores, ways, options)
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
