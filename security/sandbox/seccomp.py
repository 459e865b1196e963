"""Stage two: the system call filter, for every thread of this process, after its imports.

What always holds afterwards: the filter binds all threads, those that libraries had started before too (TSYNC), and cannot be
removed. `launch` MUST have set no_new_privs before.
"""

import ctypes
import struct

from security.sandbox import kernel
from security.sandbox.allowlists import PRETENDED_MISSING, build_rules
from security.sandbox.bpf import assemble
from security.sandbox.privileges import hide_memory
from security.sandbox.profiles import ConfinedRole, Network
from security.sandbox.syscalls import find_architecture

_SET_MODE_FILTER, _FLAG_TSYNC = 1, 1
_INSTRUCTION_BYTES = 8


def is_supported() -> bool:
    """Whether the kernel filters system calls, and we have numbers for this processor."""
    try:
        kernel.prctl(kernel.PR_GET_SECCOMP)
    except OSError:
        return False
    return find_architecture() is not None


def confine_self(role: ConfinedRole, network: Network, *, uses_gpu: bool = False, connects: bool = False) -> None:
    """Filter what this process may ask of the kernel from now on, and hide its memory from others of its user.

    Raises: OSError where the kernel refuses, or a thread could not be reached.
    """
    hide_memory()
    architecture = find_architecture()
    if architecture is None:
        raise OSError("no system call filter for this processor")
    program = assemble(
        build_rules(role, network, uses_gpu=uses_gpu, connects=connects), PRETENDED_MISSING, architecture
    )
    instructions = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // _INSTRUCTION_BYTES, ctypes.addressof(instructions))
    failed_thread = kernel.syscall(architecture.numbers["seccomp"], _SET_MODE_FILTER, _FLAG_TSYNC, header)
    if failed_thread != 0:
        raise OSError(f"thread {failed_thread} could not be brought under the filter")
