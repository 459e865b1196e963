"""xgrammar's library, taken without its package, is what the package makes of it."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from runtime.structured.library import CompiledGrammar, Grammar, TokenizerInfo, new_matcher

TABLE = [*(bytes([byte]) for byte in range(256)), b"", b"the", b'": "', b'"}']
EOS, VOCAB_SIZE = 256, 300
STRUCTURES: list[Any] = [
    {"type": "json_schema", "json_schema": {"type": "object", "properties": {"a": {"type": "integer"}}}},
    {"type": "regex", "pattern": "(the|a) [a-z]{2,5}"},
    {"type": "grammar", "grammar": 'root ::= "the" [a-z]+ | "a"'},
    {"type": "grammar", "grammar": "root ::= other"},
    {"type": "json_schema", "json_schema": {"$ref": "#/$defs/none"}},
    {"type": "nothing"},
]
FOLLOWED = b'{"a": 1}'
AS_THE_PACKAGE = """
import json, sys
import numpy as np
import xgrammar
table, structures, eos, vocab_size = [bytes.fromhex(one) for one in json.loads(sys.argv[1])], *map(json.loads, sys.argv[2:])
info = xgrammar.TokenizerInfo(table, xgrammar.VocabType.RAW, vocab_size=vocab_size, stop_token_ids=[eos])
told = []
for form in structures:
    try:
        grammar = xgrammar.Grammar.from_structural_tag(json.dumps({"type": "structural_tag", "format": form}))
        compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
        compiled = compiler.compile_grammar(grammar)
        again = compiler.compile_grammar(str(grammar))
    except (RuntimeError, ValueError, TypeError) as error:
        told.append(str(error))
        continue
    read = xgrammar.CompiledGrammar.deserialize_json(compiled.serialize_json(), info)
    matcher, masks = xgrammar.GrammarMatcher(read), []
    for token in STEPS:
        mask = np.zeros((1, -(-vocab_size // 32)), np.int32)
        matcher.fill_next_token_bitmask(mask, 0)
        masks.append([mask.tolist(), matcher.accept_token(token), matcher.temperature])
    told.append([str(grammar), compiled.serialize_json(), again.serialize_json(), masks])
print(json.dumps(told))
"""


def without_time(told: Any) -> Any:
    """A refusal begins with when it was."""
    return told.split("] ", 1)[-1] if isinstance(told, str) else told


def told_by_ours(form: Any, vocabulary: TokenizerInfo) -> Any:
    try:
        grammar = Grammar(json.dumps({"type": "structural_tag", "format": form}))
        compiled = CompiledGrammar.compile(grammar, vocabulary)
        again = CompiledGrammar.compile(str(grammar), vocabulary)
    except (RuntimeError, ValueError, TypeError) as error:
        return str(error)
    matcher, masks = new_matcher(CompiledGrammar.deserialize(compiled.serialize(), vocabulary)), []
    for token in FOLLOWED:
        mask = np.zeros((1, -(-VOCAB_SIZE // 32)), np.int32)
        matcher.fill_next_token_bitmask(mask, 0, False)
        masks.append([mask.tolist(), matcher.accept_token(token, False), matcher.temperature()])
    return [str(grammar), compiled.serialize(), again.serialize(), masks]


@pytest.mark.long
def test_grammars_masks_and_refusals_are_the_packages() -> None:
    """Its Python passes the same arguments; long, as it imports all that is left out here."""
    words = [json.dumps([one.hex() for one in TABLE]), *map(json.dumps, (STRUCTURES, EOS, VOCAB_SIZE))]
    code = AS_THE_PACKAGE.replace("STEPS", repr(list(FOLLOWED)))
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    vocabulary = TokenizerInfo(TABLE, [EOS], VOCAB_SIZE)
    ours, theirs = [told_by_ours(form, vocabulary) for form in STRUCTURES], json.loads(done.stdout)
    assert list(map(without_time, ours)) == list(map(without_time, theirs))
    assert [isinstance(told, str) for told in theirs] == [False, False, False, True, True, True]
