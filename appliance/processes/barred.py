"""What processes cannot import, whoever asks.

tvm-ffi, which the grammar compiler needs, imports torch wherever it can and goes without where it cannot. Two hundred megabytes
of code that no structure needs would lie within reach of whatever a hostile one makes of that process. So torch, and what
compiles machine code, are for engines only. transformers, which reads pickles, is for no process, nor are rich and pygments, by
which structlog and mako would show errors to people at a terminal; they come with tools for development.
"""

import sys

BARRED = ("transformers", "rich", "pygments")
BARRED_BUT_FOR_ENGINES = ("torch", "triton", "flashinfer")


def bar_modules(role: str) -> None:
    """Make their import fail as if they were not installed. MUST come before whatever would import them.

    Source: The Python Language Reference, The module cache: None for a name makes its import a ModuleNotFoundError.
    """
    names = BARRED if role == "engine" else (*BARRED, *BARRED_BUT_FOR_ENGINES)
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type]  # typeshed knows modules only.
