"""xgrammar's library itself, without the Python package around it.

The package imports torch, transformers and pydantic, for functions of its that are not used here: seconds of every start, two
hundred megabytes, and code that the process of the compiler, which takes structures from anybody, is better without. What
computes is a shared library that describes its classes through tvm-ffi. It is loaded here as the package loads it, and its
classes are taken as it describes them, so their arguments are those of C++: by position, none left out. They are listed in
`xgrammar/tvm_ffi_binding/_ffi_api.py`. xgrammar's version is pinned for that; a test compares with the package.

tvm-ffi imports torch where it can, and does without where it cannot: `appliance.processes` sees to that.
Errors are RuntimeErrors, or Python's own.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import tvm_ffi
from tvm_ffi.libinfo import load_lib_module


def _load() -> Any:
    """The library; its classes are there for as long as it is held."""
    found = find_spec("xgrammar")
    if found is None:
        raise ImportError("xgrammar is not installed")
    folders = [Path(folder) for folder in found.submodule_search_locations or ()]
    return load_lib_module("xgrammar", "xgrammar_bindings", extra_lib_paths=folders)


def _class_of(name: str) -> Any:
    return tvm_ffi.register_object(f"xgrammar.tvm_ffi_binding.{name}")(type(name, (tvm_ffi.Object,), {}))


_LIBRARY = _load()
_TokenizerInfo = _class_of("TokenizerInfo")
_Grammar = _class_of("Grammar")
_CompiledGrammar = _class_of("CompiledGrammar")
_GrammarCompiler = _class_of("GrammarCompiler")
_GrammarMatcher = _class_of("GrammarMatcher")

_RAW = 0
"""Of a vocabulary: its entries are what tokens mean."""


class TokenizerInfo:
    """A vocabulary as the library keeps it."""

    def __init__(self, table: list[bytes], stop_ids: list[int], vocab_size: int) -> None:
        self.handle = _TokenizerInfo(table, _RAW, vocab_size, stop_ids, False)


class Grammar:
    """Rules, for no vocabulary yet."""

    def __init__(self, structure: str) -> None:
        """Of a structural tag. Raises: RuntimeError, ValueError, TypeError for what the library refuses."""
        self.handle = _Grammar.from_structural_tag(structure)

    def __str__(self) -> str:
        """As EBNF, one rule a line."""
        return str(self.handle.to_string())


class CompiledGrammar:
    """Rules, and for each of their states what of the vocabulary may come."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle

    @classmethod
    def compile(cls, grammar: Grammar | str, vocabulary: TokenizerInfo) -> "CompiledGrammar":
        """Compile rules, or their EBNF whose first is `root`, in this thread. Raises: as `Grammar`."""
        compiler = _GrammarCompiler(vocabulary.handle, 1, False, -1)
        if isinstance(grammar, str):
            return cls(compiler.compile_grammar_from_strings(grammar, "root"))
        return cls(compiler.compile_grammar_ebnf(grammar.handle))

    @classmethod
    def deserialize(cls, text: str, vocabulary: TokenizerInfo) -> "CompiledGrammar":
        """What `serialize` gave. Raises: RuntimeError, ValueError."""
        return cls(_CompiledGrammar.deserialize_json(text, vocabulary.handle))

    def serialize(self) -> str:
        """JSON, without the vocabulary."""
        return str(self.handle.serialize_json())

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        return int(self.handle.memory_size_bytes())


def new_matcher(grammar: CompiledGrammar) -> Any:
    """The library's own matcher at the beginning of a text, with the vocabulary's ends, and every step to be taken back.

    Its methods: `accept_token(id, False) -> bool`, `rollback(count)`, `temperature() -> float | None`, and
    `fill_next_token_bitmask(masks, row, False)` for masks of int32 on the host, which raises RuntimeError behind the end.
    """
    return _GrammarMatcher(grammar.handle, None, False, -1, None)
