"""What of the environment reaches the processes: an allow-list, so that no variable becomes a second configuration."""

import os

_INHERITED = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "HOME", "PYTHONPATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
"""What an interpreter and a GPU driver need to find their files; none of them is read by our own code."""


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
