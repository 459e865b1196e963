"""Other words for the same: what may be replaced, and what never is."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from appliance.demo.corpus.rewording import reword


def test_every_word_of_a_group_can_come() -> None:
    """All replacements are reached, a capital stays a capital, and the other words stay."""
    said = {reword("Verify the log.", Random(seed), 1.0) for seed in range(300)}
    assert {"Check the log.", "Verify the log.", "Ascertain the log."} <= said
    assert all(text.endswith(" the log.") and text[0].isupper() for text in said)


def test_places_of_values_paths_and_commands_stay() -> None:
    """What a program reads is not language."""
    for seed in range(50):
        assert reword("{get} /check `run` check-in", Random(seed), 1.0).startswith("{get} /check `run` ")


@given(text=st.text(max_size=60), seed=st.integers(0, 1000))
def test_no_share_changes_nothing(text: str, seed: int) -> None:
    """A share of 0 is the text itself; the same seed gives the same words."""
    assert reword(text, Random(seed), 0.0) == text
    assert reword(text, Random(seed), 0.5) == reword(text, Random(seed), 0.5)
