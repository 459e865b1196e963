"""A seccomp filter as a classic BPF program. Pure; ours, so that neither libseccomp nor a compiler has to be on the host.

    (1) another architecture's numbers: kill
    (2) a number later than we know: ENOSYS
    (3) each call that is named: allow, or look at its arguments
    (4) what pretends to be missing: ENOSYS
    (5) everything else: EPERM

Calls without conditions cost nothing at run time: the kernel (5.11 and later) works out once which numbers are always allowed.
Source: seccomp(2), Documentation/userspace-api/seccomp_filter.rst, linux/bpf_common.h.
"""

import errno
import struct
from collections.abc import Iterable, Mapping

from security.sandbox.allowlists import ALL_BITS, Match, Rule
from security.sandbox.syscalls import NEWEST, Architecture

KILL_PROCESS = 0x8000_0000
_ALLOW = 0x7FFF_0000
_ERRNO = 0x0005_0000

_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_JUMP_EQUAL, _JUMP_GREATER = 0x15, 0x25
_OFFSET_NUMBER, _OFFSET_ARCHITECTURE, _OFFSET_ARGUMENTS = 0, 4, 16

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, constant. Jumps count the instructions that are passed over."""


def assemble(rules: Mapping[str, Rule], pretended_missing: Iterable[str], architecture: Architecture) -> bytes:
    """The program's bytes, eight an instruction. Both of our architectures are little-endian."""
    program: list[Instruction] = [
        (_LOAD, 0, 0, _OFFSET_ARCHITECTURE),
        (_JUMP_EQUAL, 1, 0, architecture.audit_id),
        (_RETURN, 0, 0, KILL_PROCESS),
        (_LOAD, 0, 0, _OFFSET_NUMBER),
        (_JUMP_GREATER, 0, 1, NEWEST),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    for name, rule in rules.items():
        if name in architecture.numbers:
            body = _encode_rule(rule)
            program += [(_JUMP_EQUAL, 0, len(body), architecture.numbers[name]), *body]
    for name in pretended_missing:
        if name in architecture.numbers:
            program += [(_JUMP_EQUAL, 0, 1, architecture.numbers[name]), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    program.append((_RETURN, 0, 0, _ERRNO | errno.EPERM))
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)


def _encode_rule(rule: Rule) -> list[Instruction]:
    """Instructions that always end in a return, so that what follows finds the call's number still loaded."""
    if rule == Rule():
        return [(_RETURN, 0, 0, _ALLOW)]
    refusal: Instruction = (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    body: list[Instruction] = []
    for match in rule.refused:
        body += [*_encode_test(match, skipped=1), refusal]
    for alternative in rule.alternatives:
        block: list[Instruction] = [(_RETURN, 0, 0, _ALLOW)]
        for match in reversed(alternative):
            block = [*_encode_test(match, skipped=len(block)), *block]
        body += block
    return [*body, refusal]


def _encode_test(match: Match, skipped: int) -> list[Instruction]:
    """Go on if it matches, else pass over `skipped` instructions."""
    load: Instruction = (_LOAD, 0, 0, _OFFSET_ARGUMENTS + 8 * match.argument)
    masked: list[Instruction] = [(_AND, 0, 0, match.mask)] if match.mask != ALL_BITS else []
    return [load, *masked, (_JUMP_EQUAL, 0, skipped, match.value)]
