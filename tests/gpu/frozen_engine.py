"""Runs in a process of its own: an engine over a frozen bundle, or one that compiles. Prints its tokens and what it imported.

usage: frozen_engine.py MODEL_FOLDER ATTENTION_BACKEND KERNELS_PATH FROZEN
"""

import json
import sys
from pathlib import Path

from runtime.runner.device_building import build_device_runner
from runtime.runner.kernel_choice import choose_kernels
from runtime.settings import EngineSettings
from tests.support.step_batches import Chunk, sampling_batch, step_batch

NUM_SEQUENCES = 12
PROMPT = [(7919 * index) % 128_000 for index in range(90)]


def main(folder: str, backend: str, kernels_path: str, frozen: str) -> None:
    settings = EngineSettings(
        model_path=folder,
        device="cuda",
        attention_backend=backend,  # type: ignore[arg-type]
        load_format="dummy",
        max_running_requests=512,
        max_total_tokens=140_000,
        kernels_path=kernels_path,
        frozen=frozen == "frozen",
    )
    kernels = choose_kernels(settings, lambda sentence: print(sentence, file=sys.stderr))
    runner = build_device_runner(Path(folder), settings, kernels, advance=lambda: None).runner
    pages = [[1 + 10 * index + page for page in range(10)] for index in range(NUM_SEQUENCES)]
    chunks = [Chunk(PROMPT[index : index + 30 + index], 0, pages[index]) for index in range(NUM_SEQUENCES)]
    tokens = [runner.launch(step_batch(chunks)).result().token_ids.tolist()]
    for step in range(6):
        count = NUM_SEQUENCES - 2 * step  # captured sizes with and without padding, down to 2 rows
        chunks = [Chunk([0], 30 + index + step, pages[index], previous_row=index) for index in range(count)]
        temperature = [0.0, 0.9] * (count // 2)
        sampling = sampling_batch(count, temperature=temperature, seed=5, position=60 + step)
        tokens.append(runner.launch(step_batch(chunks, sampling)).result().token_ids.tolist())
    compilers = sorted({name.partition(".")[0] for name in sys.modules} & {"triton", "flashinfer"})
    print(json.dumps({"tokens": tokens, "compilers": compilers, "digest": kernels.digest}))


if __name__ == "__main__":
    main(*sys.argv[1:])
