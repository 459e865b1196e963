"""How fast models are verified, and what verifying adds to loading them: `python -m tests.bench.model_digests`.

`folder` hashes files as `casemate model verify` does. `loading` reads a checkpoint as an engine does for a GPU (a thread a shard,
16 MiB at a time), into host memory where there is none, with and without a digest over what was read, in turns; the best of
each. Files are written below `--dir`, once, and are in the page cache then; random, so that nothing is a hole.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

import runtime.weights.device_loading as device_loading
from runtime.weights.checkpoint import open_checkpoint
from runtime.weights.config import ModelConfig, load_model_config
from runtime.weights.file_check import FileCheck
from runtime.weights.layout import parameter_shapes
from runtime.weights.placing import Placing
from security.model_signing.algorithms import ALGORITHMS, Hasher, new_hasher
from security.model_signing.digests import hash_files
from security.model_signing.folder import ModelFolder

PIECE_BYTES = 1 << 24
HIDDEN = 3072


class Unhashed:
    """A digest that looks at nothing."""

    def update(self, data: object, /) -> None:
        """Nothing."""

    def hexdigest(self) -> str:
        """Of nothing."""
        return "0" * 64


def best_of(repeats: int, *works: Callable[[], None]) -> list[float]:
    """Seconds of each, taken in turns."""
    found: list[list[float]] = [[] for _ in works]
    for _ in range(repeats):
        for times, work in zip(found, works, strict=True):
            begin = time.perf_counter()
            work()
            times.append(time.perf_counter() - begin)
    return [min(times) for times in found]


def measure_folder(place: Path, options: argparse.Namespace) -> None:
    """Hash files of one size."""
    piece = os.urandom(PIECE_BYTES)
    for number in range(options.files):
        with (place / f"{number:05}.safetensors").open("wb") as file:
            for _ in range(int(options.gigabytes * 1e9) // options.files // PIECE_BYTES):
                file.write(piece)
    with ModelFolder(place) as folder:
        files = folder.list_files()
        size = sum(file.size_bytes for file in files)
        for algorithm in ALGORITHMS:
            for num_threads in sorted({1, options.threads}):

                def work(algorithm: str = algorithm, num_threads: int = num_threads) -> None:
                    hash_files(folder, files, algorithm=algorithm, num_threads=num_threads)

                (seconds,) = best_of(options.repeats, work)
                print(f"{algorithm:7} {len(files)} files, {num_threads:2} threads: {size / seconds / 1e9:5.2f} GB/s")


def write_checkpoint(folder: Path, layers: int, shards: int) -> None:
    """A Llama of 151 million parameters a layer, random bytes in float16, in so many files."""
    shapes = {
        "model.embed_tokens.weight": (4096, HIDDEN),
        "lm_head.weight": (4096, HIDDEN),
        "model.norm.weight": (HIDDEN,),
    }
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        for name in ("q", "k", "v", "o"):
            shapes[f"{prefix}self_attn.{name}_proj.weight"] = (HIDDEN, HIDDEN)
        for name in ("gate", "up"):
            shapes[f"{prefix}mlp.{name}_proj.weight"] = (4 * HIDDEN, HIDDEN)
        shapes[f"{prefix}mlp.down_proj.weight"] = (HIDDEN, 4 * HIDDEN)
        shapes |= {f"{prefix}{name}_layernorm.weight": (HIDDEN,) for name in ("input", "post_attention")}
    names, random = list(shapes), np.random.default_rng(0)
    weight_map = {name: f"model-{index % shards:05}.safetensors" for index, name in enumerate(names)}
    for shard in sorted(set(weight_map.values())):
        own = [name for name in names if weight_map[name] == shard]
        save_file({n: random.integers(0, 1 << 15, shapes[n], np.uint16).view(np.float16) for n in own}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    document = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 4096, "hidden_size": HIDDEN,
        "intermediate_size": 4 * HIDDEN, "num_hidden_layers": layers, "num_attention_heads": HIDDEN // 128,
        "num_key_value_heads": HIDDEN // 128, "head_dim": 128, "hidden_act": "silu", "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5, "rope_theta": 10_000.0, "tie_word_embeddings": False, "eos_token_id": 2, "torch_dtype": "float16",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(document))


def load(folder: Path, config: ModelConfig, parameters: dict[str, torch.Tensor], check: FileCheck) -> None:
    """All weights of a checkpoint into tensors that are there already."""
    with open_checkpoint(folder, config) as checkpoint:
        placing = Placing(checkpoint.places, parameters, torch.float16)
        device_loading.read_shards_to_device(checkpoint, placing, parameters["embedding.weight"], None, check)


def measure_loading(place: Path, options: argparse.Namespace) -> None:
    """Load a checkpoint with each algorithm, and with none."""
    write_checkpoint(place, options.layers, options.files)
    config = load_model_config(place)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    parameters = {
        name: torch.zeros(shape.shape, dtype=torch.float16, device=device)
        for name, shape in parameter_shapes(config).items()
    }
    size = sum(path.stat().st_size for path in place.glob("*.safetensors"))
    checks = [FileCheck(lambda _digests: None, lambda _num_threads: Unhashed())]
    for algorithm in ALGORITHMS:

        def begin(num_threads: int, algorithm: str = algorithm) -> Hasher:
            return new_hasher(algorithm, num_threads=num_threads)

        checks.append(FileCheck(lambda _digests: None, begin))
    works = [lambda check=check: load(place, config, parameters, check) for check in checks]
    seconds = best_of(options.repeats, *works)
    for name, each in zip(("none", *ALGORITHMS), seconds, strict=True):
        print(f"loading {size / 1e9:.2f} GB in {options.files} shards to {device}, {name:7}: {each:6.3f} s", end="")
        print(f", {size / each / 1e9:5.2f} GB/s, {each / seconds[0] - 1:+.0%}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.model_digests", description=__doc__)
    parser.add_argument("what", choices=("folder", "loading"))
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of `folder`")
    parser.add_argument("--layers", type=int, default=4, help="of `loading`: 302 MB each")
    parser.add_argument("--files", type=int, default=2)
    parser.add_argument("--threads", type=int, default=min(16, len(os.sched_getaffinity(0))))
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="model-", dir=options.dir))
    try:
        (measure_folder if options.what == "folder" else measure_loading)(place, options)
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
