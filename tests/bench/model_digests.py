"""How fast models are verified: `python -m tests.bench.model_digests`.

Files are hashed as `casemate model verify` does, and by both algorithms in one pass, as `approve` does; the best of each. They are
written below `--dir`, once, and are in the page cache then; random, so that nothing is a hole. What verifying adds to loading is
`model_loading`'s.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from security.model_signing.algorithms import ALGORITHMS
from security.model_signing.digests import hash_files_by
from security.model_signing.folder import ModelFolder

PIECE_BYTES = 1 << 24


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
        for algorithms in (*((each,) for each in ALGORITHMS), ALGORITHMS):
            for num_threads in sorted({1, options.threads}):

                def work(algorithms: tuple[str, ...] = algorithms, num_threads: int = num_threads) -> None:
                    hash_files_by(folder, files, lambda _name: algorithms, num_threads=num_threads)

                (seconds,) = best_of(options.repeats, work)
                what = "+".join(algorithms)
                print(f"{what:13} {len(files)} files, {num_threads:2} threads: {size / seconds / 1e9:5.2f} GB/s")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.model_digests", description=__doc__)
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--files", type=int, default=2)
    parser.add_argument("--threads", type=int, default=min(16, len(os.sched_getaffinity(0))))
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="model-", dir=options.dir))
    try:
        measure_folder(place, options)
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
