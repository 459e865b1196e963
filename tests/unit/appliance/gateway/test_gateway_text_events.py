"""An event that is put together of its text and what is around it is the event that encoding all of it gives."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.gateway.api.shapes import ChatChunk, ChunkChoice, Completion, Delta, TextChoice
from appliance.gateway.api.text_events import PLACE, TextEvents
from appliance.gateway.sse import event


def chunk(text: str, model: str = "m") -> ChatChunk:
    return ChatChunk("chatcmpl-1", 7, model, [ChunkChoice(3, Delta(content=text))], "fp_1", None)


@given(text=st.one_of(st.text(), st.sampled_from([PLACE, '"', "\\", "\n\n", '"},"x":"', "é😀", "\u2028"])))
def test_an_event_is_the_same_to_the_byte(text: str) -> None:
    """Whatever a model says, the mark of the place itself included: no text reaches out of its string."""
    assert event(TextEvents(chunk(PLACE)).say(text)) == event(chunk(text))
    completion = Completion("cmpl-1", 7, "m", [TextChoice(0, text)], "fp_1")
    example = Completion("cmpl-1", 7, "m", [TextChoice(0, PLACE)], "fp_1")
    assert msgspec.json.encode(TextEvents(example).say(text)) == msgspec.json.encode(completion)


@pytest.mark.parametrize("example", [chunk("x"), chunk(PLACE, model=PLACE)])
def test_an_example_has_one_place(example: ChatChunk) -> None:
    """Another one is a mistake of ours, and found at the first token."""
    with pytest.raises(ValueError, match="values to unpack"):
        TextEvents(example)
