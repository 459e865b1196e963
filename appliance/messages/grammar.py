"""Gateway ↔ grammar compiler: a structure from a client goes in, a grammar for one model's vocabulary or a refusal comes out."""

from typing import Annotated, Literal

import msgspec

MAX_STRUCTURE_CHARS = 1 << 20
MAX_GRAMMAR_BYTES = 4 << 20
"""Far below a frame, which also carries a prompt when the grammar goes on to the engine."""


class Compile(msgspec.Struct, frozen=True, array_like=True, tag="compile"):
    """Compile this. Clients take turns, so that one with many structures delays its own."""

    correlation: Annotated[int, msgspec.Meta(ge=0)]
    client_id: Annotated[str, msgspec.Meta(max_length=256)]
    model: Annotated[str, msgspec.Meta(max_length=256)]
    structure: Annotated[str, msgspec.Meta(max_length=MAX_STRUCTURE_CHARS)]
    """xgrammar's structural tag, as JSON text."""


class Compiled(msgspec.Struct, frozen=True, array_like=True, tag="compiled"):
    """Answer to `Compile`: the grammar for that model's vocabulary."""

    correlation: int
    grammar: Annotated[bytes, msgspec.Meta(max_length=MAX_GRAMMAR_BYTES)]


CompileRefusal = Literal["invalid_grammar", "grammar_too_large", "grammar_too_slow", "grammar_timeout", "compiler_busy"]


class CompileRefused(msgspec.Struct, frozen=True, array_like=True, tag="compile_refused"):
    """Answer to `Compile`: what is wrong with the structure, or that there is no time for it now."""

    correlation: int
    code: CompileRefusal
    message: str


CompilerToGateway = Compiled | CompileRefused
