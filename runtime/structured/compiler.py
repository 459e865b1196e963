"""Structure to grammar. Time and memory are unbounded here: whoever calls this MUST do so in a process that may be killed."""

from runtime.errors import RequestRejected
from runtime.structured.library import xgrammar
from runtime.structured.vocabulary import GrammarVocabulary

MAX_REASON_CHARS = 300


def compile_structure(vocabulary: GrammarVocabulary, structure: str) -> bytes:
    """Compile an untrusted structural tag (JSON text) for one vocabulary.

    Returns: the vocabulary's digest, and the grammar as xgrammar serializes it; `matching.Grammars` reads them.
    Raises: RequestRejected for whatever xgrammar refuses.
    """
    compiler = xgrammar.GrammarCompiler(vocabulary.info, max_threads=1, cache_enabled=False)
    try:
        grammar: str = compiler.compile_structural_tag(structure).serialize_json()
    except (RuntimeError, ValueError, TypeError) as error:
        raise RequestRejected("invalid_grammar", _reason(str(error))) from error
    return vocabulary.digest + grammar.encode()


def _reason(message: str) -> str:
    """xgrammar's own words, without its time stamp and source line."""
    words = message.split(": ", 1)[-1] if message.startswith("[") else message
    return " ".join(words.split())[:MAX_REASON_CHARS]
