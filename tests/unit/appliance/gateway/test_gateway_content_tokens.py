"""Tokens of an answer's content, found among those of reasoning, calls and what stands between them."""

from itertools import accumulate, pairwise

from hypothesis import given
from hypothesis import strategies as st

from appliance.gateway.api.content_tokens import ContentTokens, ScoredContent
from appliance.gateway.flow.choice import Piece, ShownToken
from appliance.gateway.tools.events import Content
from appliance.gateway.tools.form_names import CallForm
from appliance.gateway.tools.forms import Forms
from appliance.gateway.tools.reader import AnswerReader
from appliance.gateway.tools.reasoning import ReasoningParser
from runtime.request import TokenLogprobs

SCORE = TokenLogprobs(-1.0, [], [])
CALLS: dict[CallForm, list[str]] = {
    "hermes": ['<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>', "<tool_call>no call"],
    "deepseek": [
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "<｜tool▁call▁begin｜>no call",
    ],
    "mistral": ['[TOOL_CALLS][{"name": "add", "arguments": {}}]', "[TOOL_CALLS]no call, "],
    "none": ["<tool_call>"],
}
PROSE = "ΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩ"
"""Each at most once in an answer, and in no form: so its place is known."""


@given(data=st.data(), form=st.sampled_from(sorted(CALLS)))
def test_content_has_its_own_tokens(data: st.DataObject, form: CallForm) -> None:
    """Whatever stands around it and however it is cut: a letter of the content brings its token, once and in order, one of
    anything else brings none."""
    prose = iter(PROSE)
    parts = [f"<think>{next(prose)} <b{next(prose)}</think>\n\n"] if data.draw(st.booleans()) else []
    hidden = {letter for part in parts for letter in part}
    for _ in range(data.draw(st.integers(1, 5))):
        parts += [data.draw(st.sampled_from([" ", "\n", "<", "<t", "[", "</", ""]))]
        parts += [f"{next(prose)}{data.draw(st.sampled_from([' <', '. ', '<<', '']))}{next(prose)}"]
        parts += [data.draw(st.sampled_from(["", " ", *CALLS[form]]))]
    text = "".join(parts)
    lengths = data.draw(st.lists(st.integers(1, 8), min_size=len(text), max_size=len(text)))
    cuts = [0, *(cut for cut in accumulate(lengths) if cut < len(text)), len(text)]
    tokens = [ShownToken(at, start, end, SCORE) for at, (start, end) in enumerate(pairwise(cuts))]
    reader = AnswerReader(Forms(form).new_call_parser(), ReasoningParser(is_open=False))
    contents = ContentTokens(lambda token: token)
    events = []
    step = data.draw(st.integers(1, 5))
    for first in range(0, len(tokens), step):
        shown = tokens[first : first + step]
        for fed, its in contents.slices(Piece(0, 0, text[shown[0].start : shown[-1].end], shown=shown)):
            events += contents.score(reader.feed(fed), fed, its)
    events += contents.score(reader.finish())
    said = "".join(event.text for event in events if isinstance(event, Content))
    scores = [score for event in events if isinstance(event, ScoredContent) for score in event.scores]
    assert scores == sorted(scores, key=lambda token: token.token_id)
    assert len({token.token_id for token in scores}) == len(scores)
    brought = {token.token_id for token in scores}
    for token in tokens:
        letters = {letter for letter in text[token.start : token.end] if letter in PROSE}
        if letters & set(said):
            assert token.token_id in brought
        elif letters and letters <= hidden:
            assert token.token_id not in brought
