"""Log-probabilities in OpenAI's two forms: chat's, and the legacy one of completions."""

from collections.abc import Sequence

from appliance.gateway.api.shapes import ChatLogprobs, TextLogprobs, TokenLogprob, TopLogprob
from appliance.gateway.flow.choice import ShownToken
from appliance.gateway.text.vocabulary import Vocabulary
from runtime.request import TokenLogprobs

LOWEST = -9999.0
"""Stands for minus infinity, which JSON has no word for; OpenAI's API uses the same."""


def chat_logprobs(vocabulary: Vocabulary, tokens: Sequence[ShownToken]) -> ChatLogprobs:
    """The chat form: bytes of every token, as one alone may be no whole character."""
    return ChatLogprobs([token_logprob(vocabulary, token) for token in tokens if token.logprobs is not None])


def token_logprob(vocabulary: Vocabulary, token: ShownToken) -> TokenLogprob:
    """One token, which MUST have logprobs. Responses have it in the same form."""
    assert token.logprobs is not None
    top = zip(token.logprobs.top_ids, token.logprobs.top_values, strict=True)
    return TokenLogprob(
        vocabulary.text_of(token.token_id),
        finite(token.logprobs.chosen),
        list(vocabulary.bytes_of(token.token_id)),
        [
            TopLogprob(vocabulary.text_of(token_id), finite(value), list(vocabulary.bytes_of(token_id)))
            for token_id, value in top
        ],
    )


def text_logprobs(vocabulary: Vocabulary, tokens: Sequence[ShownToken], offset: int) -> TextLogprobs:
    """The legacy form; `offset` is where the choice's own text begins (after an echoed prompt)."""
    result = TextLogprobs()
    for token in tokens:
        if token.logprobs is not None:
            _append(result, vocabulary, token.token_id, token.logprobs, offset + token.start)
    return result


def prompt_logprobs(
    vocabulary: Vocabulary, token_ids: Sequence[int], offsets: Sequence[int], logprobs: Sequence[TokenLogprobs | None]
) -> TextLogprobs:
    """The legacy form of an echoed prompt; its first token has none."""
    result = TextLogprobs()
    for token_id, offset, entry in zip(token_ids, offsets, logprobs, strict=True):
        _append(result, vocabulary, token_id, entry, offset)
    return result


def joined(first: TextLogprobs, second: TextLogprobs) -> TextLogprobs:
    """One after the other."""
    return TextLogprobs(
        first.tokens + second.tokens,
        first.token_logprobs + second.token_logprobs,
        first.top_logprobs + second.top_logprobs,
        first.text_offset + second.text_offset,
    )


def _append(
    result: TextLogprobs, vocabulary: Vocabulary, token_id: int, entry: TokenLogprobs | None, offset: int
) -> None:
    result.tokens.append(_legacy_name(vocabulary, token_id))
    result.text_offset.append(offset)
    if entry is None:
        result.token_logprobs.append(None)
        result.top_logprobs.append(None)
        return
    result.token_logprobs.append(finite(entry.chosen))
    top: dict[str, float] = {}
    for top_id, value in zip(entry.top_ids, entry.top_values, strict=True):
        # Two tokens may have the same bytes; the likelier comes first and stays.
        top.setdefault(_legacy_name(vocabulary, top_id), finite(value))
    # "There may be up to logprobs + 1 elements": the token itself is always among them.
    top.setdefault(_legacy_name(vocabulary, token_id), finite(entry.chosen))
    result.top_logprobs.append(top)


def _legacy_name(vocabulary: Vocabulary, token_id: int) -> str:
    """A token in the legacy form, which has no bytes beside its text: parts of characters are told apart as OpenAI does, or an
    evaluation takes one for another, and some of the likeliest are lost."""
    data = vocabulary.bytes_of(token_id)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def finite(value: float) -> float:
    """A logprob that JSON can hold."""
    return max(value, LOWEST) if value == value else LOWEST
