"""The generated corpus: pinned, and honestly divided from what it is measured on."""

import json
import re
import subprocess
import sys
from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from appliance.demo.corpus.arithmetic import HELD_OUT, TRAINED
from appliance.demo.corpus.development import development_examples
from appliance.demo.corpus.example import corpus_hash
from appliance.demo.corpus.mixture import SEED, held_out_examples, shard_examples, training_examples
from appliance.demo.corpus.phrasing import choose, roughen
from appliance.demo.corpus.product import load_topics

SLICE_HASH = "c38ff11f4adb711e58b91128a860f3bf76b11a9703b31a0bd50cb37be28efdd6"
HELD_OUT_HASH = "ea36a8d2390d3147bf142d2e223894082f0b86f0f4179a8f91e919f8fcf6cd1e"


def test_a_slice_of_the_corpus_is_pinned() -> None:
    """The same seed gives the same bytes on every machine."""
    assert corpus_hash(training_examples(count=2000)) == SLICE_HASH


def test_the_corpus_does_not_depend_on_the_seed_of_hashes() -> None:
    """Processes that order sets in different ways make the same examples."""
    program = (
        "from appliance.demo.corpus.example import corpus_hash\n"
        "from appliance.demo.corpus.mixture import training_examples\n"
        "print(corpus_hash(training_examples(count=2000)))"
    )
    printed = [
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, check=True, capture_output=True, text=True
        ).stdout
        for seed in ("1", "2", "3")
    ]
    assert printed == [f"{SLICE_HASH}\n"] * 3


def test_an_example_depends_on_its_number_alone() -> None:
    """Whoever makes the last shard need not make those before it."""
    examples = list(training_examples(count=60))
    assert shard_examples(SEED, 2, 20) == examples[40:]
    assert shard_examples(SEED, 0, 20) == examples[:20]


def test_the_held_out_set_is_pinned() -> None:
    """What the model is measured on does not move unnoticed."""
    assert corpus_hash(held_out_examples()) == HELD_OUT_HASH


def test_no_held_out_question_is_trained() -> None:
    """No user turn of the held-out or the development set occurs in a good part of the training set."""

    def plain(text: str) -> str:
        return re.sub(r"\W+", " ", text.lower()).strip()

    trained = {
        plain(message.content)
        for example in training_examples(count=12_000)
        for message in example.messages
        if message.role == "user"
    }
    untrained = (*held_out_examples(), *development_examples(SEED))
    asked = [plain(example.messages[-2].content) for example in untrained]
    assert not [question for question in asked if question in trained]


def test_arithmetic_families_are_disjoint() -> None:
    """A held-out situation shares neither name nor template with a trained one."""
    assert not {family.name for family in TRAINED} & {family.name for family in HELD_OUT}
    trained = {template for family in TRAINED for template in family.templates}
    assert not trained & {template for family in HELD_OUT for template in family.templates}


def test_every_topic_states_its_facts() -> None:
    """An answer holds the facts it is judged by, has many training questions and at least two held-out ones."""
    for name, topic in load_topics().items():
        assert all(fact in topic["answer"] for fact in topic["facts"]), name
        assert len(topic["held_out"]) >= 2, name
        rng = Random(1)
        assert len({choose(template, rng) for template in topic["asks"] for _ in range(60)}) >= 10, name


def test_facts_tell_topics_apart() -> None:
    """No answer contains all the facts of another topic, so a mixed-up answer cannot count as right."""
    topics = load_topics()
    mixed = [
        (one, other)
        for one, topic in topics.items()
        for other, facts in topics.items()
        if one != other and all(fact in topic["answer"] for fact in facts["facts"])
    ]
    assert mixed == []


def test_worked_answers_are_right() -> None:
    """Every equation in a worked answer holds, and its last result is the answer."""
    for example in training_examples(count=3000):
        if example.kind != "arithmetic" or len(example.messages) != 2:
            continue
        answer = example.messages[1].content
        results = []
        for left, operator, right, result in re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)\.", answer):
            value = {"+": int(left) + int(right), "-": int(left) - int(right), "*": int(left) * int(right)}
            assert int(right) * int(result) == int(left) if operator == "/" else value[operator] == int(result)
            results.append(result)
        assert answer.endswith(f"The answer is {results[-1]}.")


def test_answers_to_extraction_copy_from_the_question() -> None:
    """Every value of the expected object stands in the question."""
    for example in held_out_examples():
        if example.kind == "extraction":
            question = example.messages[0].content
            assert json.loads(example.messages[1].content) == example.expected
            assert all(str(value) in question for value in example.expected.values())


def test_the_mixture_holds_every_kind() -> None:
    """Each kind has its share."""
    kinds = Counter(example.kind for example in training_examples(count=2000))
    assert set(kinds) == {"product", "arithmetic", "extraction", "tool", "story", "smalltalk"}
    assert min(kinds.values()) >= 30


def test_choices_leave_no_marks() -> None:
    """No template mark reaches a training text."""
    for example in training_examples(count=3000):
        for message in example.messages:
            if message.role == "user":
                assert not re.search(r"\{(who|other|things|a|b|c|keys|text|hero|name)\}|\|", message.content)


@given(text=st.text(max_size=60), seed=st.integers(0, 1000))
def test_roughening_takes_any_text(text: str, seed: int) -> None:
    """Whatever the text, the result is a text, and the same for the same seed."""
    text = text or "x"
    assert roughen(text, Random(seed)) == roughen(text, Random(seed))
