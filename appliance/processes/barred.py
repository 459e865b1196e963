"""What no process but an engine's can import, whoever asks: torch, what compiles machine code, and what draws them in.

tvm-ffi, which the grammar compiler needs, imports torch wherever it can and goes without where it cannot. Two hundred megabytes
of code that no structure needs would lie within reach of whatever a hostile one makes of that process.
"""

import sys

from appliance.messages.control import Role

BARRED = ("torch", "triton", "flashinfer", "transformers")


def bar_modules(role: Role) -> None:
    """Make their import fail as if they were not installed. MUST come before whatever would import them.

    Source: The Python Language Reference, The module cache: None for a name makes its import a ModuleNotFoundError.
    """
    if role != "engine":
        sys.modules.update(dict.fromkeys(BARRED))  # type: ignore[arg-type]  # typeshed knows modules only.
