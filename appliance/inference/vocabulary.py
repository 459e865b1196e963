"""A model folder's vocabulary as grammars need it. Compiler and engine both build it here, so that they agree."""

from collections.abc import Collection
from pathlib import Path

import structlog

from appliance.gateway.text.errors import ModelFolderRefused
from appliance.gateway.text.model_folder import OnRead, load_tokenizer_file
from appliance.gateway.text.vocabulary import build_vocabulary
from runtime.structured.vocabulary import GrammarVocabulary

log = structlog.get_logger(__name__)


def load_grammar_vocabulary(
    folder: Path, eos_token_ids: Collection[int], vocab_size: int, on_read: OnRead | None = None
) -> GrammarVocabulary | None:
    """The vocabulary; None where output cannot be constrained: a tokenizer of another kind, or no end of an answer."""
    if not eos_token_ids:
        return None
    try:
        vocabulary = build_vocabulary(load_tokenizer_file(folder, on_read)[1])
    except ModelFolderRefused as refused:
        log.warning("output_cannot_be_constrained", reason=str(refused))
        return None
    # A control token that text does not show must not be chosen for its bytes; an end of the answer is one by its id.
    silent = vocabulary.silent_ids | frozenset(eos_token_ids)
    table = [b"" if token_id in silent else entry for token_id, entry in enumerate(vocabulary.table[:vocab_size])]
    return GrammarVocabulary(table, eos_token_ids, vocab_size=vocab_size)
