"""The `[grammar]` section."""

from typing import Annotated

from msgspec import Meta, Struct

from appliance.messages.grammar import MAX_GRAMMAR_BYTES, MAX_STRUCTURE_CHARS


class GrammarSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one client's structured output may cost before its first token."""

    compile_timeout_s: Annotated[
        float, Meta(gt=0, le=60, description="How long compiling and trying one grammar may take, in seconds.")
    ] = 5.0
    compile_memory_bytes: Annotated[
        int, Meta(ge=64 << 20, le=1 << 36, description="Memory that compiling one grammar may take, in bytes.")
    ] = 1 << 30
    max_structure_chars: Annotated[
        int,
        Meta(
            ge=1024,
            le=MAX_STRUCTURE_CHARS,
            description="Longest schema, expression or grammar of one request with all its tools, in characters.",
        ),
    ] = 256 << 10
    max_grammar_bytes: Annotated[
        int, Meta(ge=4096, le=MAX_GRAMMAR_BYTES, description="Largest compiled grammar, in bytes.")
    ] = 4 << 20
    max_compiling: Annotated[int, Meta(ge=1, le=64, description="Grammars that are compiled at a time.")] = 2
    max_waiting_per_client: Annotated[
        int, Meta(ge=1, le=1024, description="Grammars of one client that may wait for their turn.")
    ] = 16
