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
from appliance.demo.corpus.extraction import extraction_example
from appliance.demo.corpus.mixture import SEED, held_out_examples, shard_examples, training_examples
from appliance.demo.corpus.phrasing import choose, roughen
from appliance.demo.corpus.product import load_topics
from appliance.demo.corpus.records import RECORDS
from appliance.demo.corpus.requests import MORE_ASKS, MORE_TOOLS
from appliance.demo.corpus.scenes import SCENES
from appliance.demo.corpus.sentences import MORE_SENTENCES
from appliance.demo.corpus.smalltalk import UNKNOWN
from appliance.demo.corpus.toolbox import TOOLS
from appliance.demo.corpus.tools import tool_example

SLICE_HASH = "1356c06454fc1ebd89c41a21ec8a802ecb5fc10dc81c24f68871d21e5f3a41c3"
HELD_OUT_HASH = "0019fa9079f85d3d130b5abe2f46c0ecb2b9126748bbdb9beffd80244c74caea"


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
    """No question of the held-out or the development set occurs in a good part of the training set."""

    def plain(text: str) -> str:
        return re.sub(r"\W+", " ", text.lower()).strip()

    trained = {
        plain(message.content)
        for example in training_examples(count=12_000)
        for message in example.messages
        if message.role == "user"
    }
    untrained = [example.messages[-2] for example in (*held_out_examples(), *development_examples(SEED))]
    asked = [plain(message.content) for message in untrained if message.role == "user"]
    assert not [question for question in asked if question in trained]


def test_arithmetic_families_are_disjoint() -> None:
    """A held-out situation shares neither name nor template with a trained one."""
    assert not {family.name for family in TRAINED} & {family.name for family in HELD_OUT}
    trained = {template for family in TRAINED for template in family.templates}
    assert not trained & {template for family in HELD_OUT for template in family.templates}


def test_what_is_only_trained_shares_no_template_with_what_is_measured() -> None:
    """Scenes and more tools are not measured, and nothing added to records and tools is a held-out wording."""
    measured = {template for record in RECORDS for template in record.held_out}
    measured |= {template for tool in TOOLS for template in tool.held_out}
    added = {template for scene in SCENES for template in scene.sentences}
    added |= {template for tool in MORE_TOOLS for template in tool.asks}
    for more in (MORE_SENTENCES, MORE_ASKS):
        added |= {template for templates in more.values() for template in templates}
    assert not added & measured
    assert not any(scene.held_out for scene in SCENES)
    assert not any(tool.held_out for tool in MORE_TOOLS)


def test_calls_follow_the_schema_on_offer_and_copy_from_the_request() -> None:
    """A call names an offered tool, gives each required parameter and no other, and its texts stand in the request."""
    names = set()
    for seed in range(1500):
        example = tool_example(Random(seed))
        if example.family == "tool/none":
            continue
        question, answer = next(
            (one.content, other.content)
            for one, other in zip(example.messages, example.messages[1:], strict=False)
            if one.role == "user"
        )
        call = json.loads(answer.removeprefix("<tool_call>").removesuffix("</tool_call>"))
        offered = {tool["function"]["name"]: tool["function"]["parameters"] for tool in example.tools}
        assert set(call["arguments"]) == set(offered[call["name"]]["required"])
        assert all(str(value) in question for value in call["arguments"].values())
        names.add(call["name"])
    assert {"get_weather", "weather"} <= names


def test_extraction_copies_from_the_request() -> None:
    """What is to be learnt can be found: every value stands in the request as it stands in the answer."""
    for example in map(extraction_example, map(Random, range(1500))):
        assert all(str(value) in example.messages[0].content for value in example.expected.values())


def test_small_talk_does_not_hide_a_tool_that_answers() -> None:
    """Nobody learns to say "I do not know" to a question about the weather while the weather is on offer."""
    unknown = [
        {tool["function"]["name"] for tool in example.tools}
        for example in map(tool_example, map(Random, range(4000)))
        if example.messages[-1].content == UNKNOWN
    ]
    assert unknown
    assert not set.union(*unknown) & {"get_weather", "get_time", "translate"}


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
