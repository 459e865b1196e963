"""Structure to grammar. Time and memory are unbounded here: whoever calls this MUST do so in a process that may be killed."""

import json
from typing import Any

import numpy as np

from runtime.errors import RequestRejected
from runtime.structured.bounds import MARKED, UNMARKED, with_budgets
from runtime.structured.library import CompiledGrammar, Grammar, new_matcher
from runtime.structured.trimming import trimmed
from runtime.structured.vocabulary import GrammarVocabulary

MAX_REASON_CHARS = 300
_OUT_OF_MEMORY = "bad_alloc"
"""Of C++'s own word for it, which xgrammar lets through as an error of the grammar."""


def compile_structure(vocabulary: GrammarVocabulary, structure: str) -> bytes:
    """Compile an untrusted structural tag (JSON text) for one vocabulary.

    Returns: the vocabulary's digest, whether the grammar has the marks of `bounds`, and the grammar as xgrammar serializes it;
        `matching.Grammars` reads them.
    Raises: RequestRejected for whatever xgrammar refuses; MemoryError where it found none.
    """
    try:
        grammar = Grammar(structure)
        is_ours = not _has_grammar(json.loads(structure)["format"])
        rules = with_budgets(str(grammar)) if is_ours else grammar
        compiled = CompiledGrammar.compile(rules, vocabulary.info)
        serialized = trimmed(compiled.serialize())
    except (RuntimeError, ValueError, TypeError) as error:
        if _OUT_OF_MEMORY in str(error):
            raise MemoryError from error
        raise RequestRejected("invalid_grammar", _reason(str(error))) from error
    if not _can_begin(vocabulary, compiled):
        raise RequestRejected("invalid_grammar", "no output can follow it")
    return vocabulary.digest + (MARKED if is_ours else UNMARKED) + serialized.encode()


def _has_grammar(form: Any) -> bool:
    """Whether a client's own rules are a part of it, in which names and options mean what they say."""
    if isinstance(form, dict):
        parts = [value for key, value in form.items() if key != "json_schema"]
        return form.get("type") == "grammar" or any(_has_grammar(part) for part in parts)
    return isinstance(form, list) and any(_has_grammar(part) for part in form)


def _can_begin(vocabulary: GrammarVocabulary, compiled: CompiledGrammar) -> bool:
    """References in a circle and the like compile, and allow nothing."""
    mask = np.zeros((1, vocabulary.num_words), np.int32)
    new_matcher(compiled).fill_next_token_bitmask(mask, 0, False)
    return bool(mask.any())


def _reason(message: str) -> str:
    """xgrammar's own words, without its time stamp and source line."""
    words = message.split(": ", 1)[-1] if message.startswith("[") else message
    return " ".join(words.split())[:MAX_REASON_CHARS]
