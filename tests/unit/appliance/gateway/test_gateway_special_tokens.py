"""Texts in which control tokens are broken: what is broken is what a plain definition says, and many texts cost little."""

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.gateway.text.model_folder import AddedToken
from appliance.gateway.text.special_tokens import SpecialTokens

CONTENTS = ("<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>", "[INST]", "aba", " x ")
SENTINEL = "\ufdd0"
PIECES = [*CONTENTS, *"<|>[] \nabx", "im_", "_end", "tool", "INS"]


def special_of(*contents: str) -> SpecialTokens:
    return SpecialTokens(
        AddedToken(id=number, content=content, special=True) for number, content in enumerate(contents, 300)
    )


def broken(text: str) -> str:
    """Spelled out: each whole token, an end that begins one, a beginning that ends one, a text that is all inside one."""
    contents = sorted(CONTENTS, key=lambda content: -len(content))
    for content in contents:
        text = text.replace(content, content[0] + SENTINEL + content[1:])
    end = text.rstrip()
    if any(end.endswith(content[:length]) for content in contents for length in range(1, len(content))):
        text = end + SENTINEL + text[len(end) :]
    beginning = text.lstrip()
    ends_one = any(beginning.startswith(content[-length:]) for content in contents for length in range(1, len(content)))
    if beginning and (ends_one or any(beginning in content for content in contents)):
        text = text[: len(text) - len(beginning)] + SENTINEL + beginning
    return text


@settings(max_examples=500)
@given(st.lists(st.sampled_from(PIECES), max_size=6).map("".join))
def test_what_could_be_a_token_is_broken(text: str) -> None:
    """And nothing else is touched."""
    assert special_of(*CONTENTS).break_all(text, SENTINEL) == broken(text)


def test_many_texts_beside_many_tokens_cost_little() -> None:
    """Llama 3 has 256 control tokens, and a body of 4 MiB can hold half a million texts: a millisecond each would stop a worker."""
    special = special_of(*(f"<|reserved_special_token_{number}|>" for number in range(256)))
    texts = [f"value {number}" for number in range(50_000)] + [f"{number}<" for number in range(50_000)]
    began = time.process_time()
    for text in texts:
        special.break_all(text, SENTINEL)
    assert time.process_time() - began < 5, "0.25 s where this was written, and 83 s before it"
