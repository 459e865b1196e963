"""What of the environment reaches the processes: an allow-list, so that no variable becomes a second configuration."""

import os

_INHERITED = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "HOME", "PYTHONPATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
"""What an interpreter and a GPU driver need to find their files; none of them is read by our own code."""


_GPUS = "CUDA_VISIBLE_DEVICES"
_NO_PROGRAMS = "/nonexistent"


def child_environment(*, is_confined: bool) -> dict[str, str]:
    """The environment for processes that the supervisor starts; the working folder is never on their import path.

    A confined process may start no program and write no temporary file, so it is told of no program either: `ctypes`, which
    torch's CUDA build has look for libraries, else makes a file for the compiler that it finds, and fails.
    """
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    if is_confined:
        inherited["PATH"] = _NO_PROGRAMS
    # The gateway's event loop would use io_uring where the kernel has it, which the system call filter then ends. Its tokenizer
    # would start a thread for each core, and hand each text to one of them.
    return {**inherited, "PYTHONSAFEPATH": "1", "UV_USE_IO_URING": "0", "TOKENIZERS_PARALLELISM": "false"}


def gpu_environment(first: int, count: int) -> dict[str, str]:
    """What shows an engine `count` GPUs from `first` on, of those that are shown to us. A driver counts them from 0 again."""
    return {_GPUS: ",".join(_shown_gpus(first + count)[first : first + count])}


def rank_environment(rank: int) -> dict[str, str]:
    """This environment for one rank of an engine: its own GPU comes first, so all that it does is on GPU 0.

    A driver looks at it once, when some module asks whether there is a GPU at all; so it is given at exec.
    """
    gpus = _shown_gpus(0)
    if rank < len(gpus):
        gpus.insert(0, gpus.pop(rank))
    return {**os.environ, _GPUS: ",".join(gpus)} if gpus else dict(os.environ)


def _shown_gpus(least: int) -> list[str]:
    """Those that are shown to us, by number or name; the first so many where nothing is said."""
    return [name for name in os.environ.get(_GPUS, "").split(",") if name] or [str(number) for number in range(least)]
