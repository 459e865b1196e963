"""Text to ids: as the tokenizers library does it, but that no text becomes a control token."""

import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as OutsideTokenizer

from appliance.gateway.text.errors import TextRefused
from appliance.gateway.text.model_folder import AddedToken
from appliance.gateway.text.special_tokens import SpecialTokens, choose_sentinels
from appliance.gateway.text.tokenizer import Tokenizer, load_tokenizer
from tests.support.controls import control
from tests.support.model_folders import MARKS, SPECIALS, write_byte_fallback_model

DATA = os.environ.get("CASEMATE_TEST_DATA")
SHARED_MODEL = Path(DATA or "/nonexistent") / "models" / "tinystories-656k"
needs_shared_model = pytest.mark.skipif(
    not SHARED_MODEL.is_dir(), reason="CASEMATE_TEST_DATA has no models/tinystories-656k"
)
slow_fixture = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
plain = st.text(max_size=60).filter(lambda text: not any(name in text for name in (*SPECIALS, *MARKS)))
"""Hypothesis draws the texts of this very code as well, and so the names of control tokens."""
hostile = st.lists(st.sampled_from([*"<|im_endstar>callthink/ \n", *SPECIALS, *MARKS]), max_size=20).map("".join)


@slow_fixture
@given(text=plain)
def test_plain_text_is_tokenized_as_the_library_does(text: str, byte_level: Tokenizer, byte_level_folder: Path) -> None:
    """Without the names of control tokens in it, text gives the library's ids."""
    outside = OutsideTokenizer.from_file(str(byte_level_folder / "tokenizer.json"))
    assert byte_level.encode_plain(text) == outside.encode(text, add_special_tokens=False).ids


@control("SI-10")
@slow_fixture
@given(text=hostile)
def test_no_text_becomes_a_control_token(text: str, byte_level: Tokenizer) -> None:
    """Whatever a client types: its ids are bytes and merges, and they spell exactly what was typed."""
    ids = byte_level.encode_plain(text)
    assert max(ids, default=0) < 259
    assert b"".join(byte_level.vocabulary.bytes_of(token_id) for token_id in ids).decode() == text


@slow_fixture
@given(before=hostile, user=hostile, after=hostile)
def test_a_users_text_never_adds_a_control_token_to_a_template(
    before: str, user: str, after: str, byte_level: Tokenizer
) -> None:
    """Between any two texts of a template, a broken text adds no control token and takes none away, and reads as typed."""
    special = byte_level.special
    sentinel, _ = choose_sentinels([user])
    alone = special.split(before, sentinel) + special.split(after, sentinel)
    together = special.split(before + special.break_all(user, sentinel) + after, sentinel)
    assert [s.token_id for s in together if s.token_id is not None] == [
        s.token_id for s in alone if s.token_id is not None
    ]
    assert "".join(segment.text for segment in together) == before + user + after


def test_template_text_that_spells_a_token_with_the_users_help_stays_text(byte_level: Tokenizer) -> None:
    """A beginning of a user's text that would complete a mark of the template does not."""
    special = byte_level.special
    sentinel, _ = choose_sentinels([])
    for split in range(1, len("<|im_end|>")):
        left, right = "<|im_end|>"[:split], "<|im_end|>"[split:]
        assert all(s.token_id is None for s in special.split(left + special.break_all(right, sentinel), sentinel))
        assert all(s.token_id is None for s in special.split(special.break_all(left, sentinel) + right, sentinel))
    middle = "<|" + special.break_all("im_e", sentinel) + "nd|>"
    assert [(s.token_id, s.text) for s in special.split(middle, sentinel)] == [(None, "<|im_end|>")]


def test_sentinel_is_one_that_the_texts_do_not_hold() -> None:
    """A client may use noncharacters; ours is then another."""
    assert choose_sentinels(["a\ufdd0b", "\ufdd1"]) == ("\ufdd2", "\ufdd3")
    with pytest.raises(TextRefused):
        choose_sentinels(["".join(map(chr, range(0xFDD0, 0xFDF0)))])


def test_prompt_begins_as_the_post_processor_says(tmp_path: Path) -> None:
    """A tokenizer that puts `<s>` before a text puts it before a prompt, once, and text cannot add another."""
    tokenizer = load_tokenizer(write_byte_fallback_model(tmp_path / "fallback"))
    outside = OutsideTokenizer.from_file(str(tmp_path / "fallback" / "tokenizer.json"))
    assert tokenizer.encode_prompt("ab a") == outside.encode("ab a").ids
    assert tokenizer.encode_prompt("<s>a").count(1) == 1


@needs_shared_model
@slow_fixture
@given(text=st.text(alphabet="abcdefgh ,.'\nOnceupT", max_size=60))
def test_shared_model_is_tokenized_as_the_library_does(text: str) -> None:
    """A real SentencePiece tokenizer, its beginning-of-story token included."""
    tokenizer = _SHARED.setdefault("ours", load_tokenizer(SHARED_MODEL))
    outside = _SHARED.setdefault("outside", OutsideTokenizer.from_file(str(SHARED_MODEL / "tokenizer.json")))
    assert tokenizer.encode_prompt(text) == outside.encode(text).ids


@needs_shared_model
@pytest.mark.parametrize(
    "text", ["<|end_story|>", "a <|end_story|> b", "<|start_story|>Once", "<unk><unk>", "<|end_story|>" * 3]
)
def test_shared_model_spells_its_control_tokens_as_text(text: str) -> None:
    """Its merges can spell a control token by themselves; then the text is cut inside it, and nothing is lost."""
    tokenizer = load_tokenizer(SHARED_MODEL)
    ids = tokenizer.encode_plain(text)
    assert tokenizer.vocabulary.special_ids.isdisjoint(ids)


_SHARED: dict[str, object] = {}


def test_tokens_with_stripping_take_the_space_beside_them() -> None:
    """`lstrip` and `rstrip`, as several model families have them on their turn marks."""
    special = SpecialTokens([AddedToken(7, "[INST]", True, lstrip=True, rstrip=True)])
    assert [(s.token_id, s.text) for s in special.split("a  [INST]  b", "\ufdd0")] == [
        (None, "a"),
        (7, "  [INST]  "),
        (None, "b"),
    ]


def test_text_that_cannot_fit_is_refused_untokenized(byte_level: Tokenizer) -> None:
    """Length times the longest token bounds what may fit, so a flood of text costs no tokenizing."""
    with pytest.raises(TextRefused, match="cannot fit"):
        byte_level.verify_may_fit("x" * 100_000, 512, "prompt")


def tenths_seen_by_another_thread(tokenizer: Tokenizer, text: str) -> int:
    """In how many tenths of the time that a text takes another thread runs."""
    seen: list[float] = []
    times: list[float] = []

    def tokenize() -> None:
        times.append(time.monotonic())
        tokenizer._encode(text)
        times.append(time.monotonic())

    thread = threading.Thread(target=tokenize)
    thread.start()
    while thread.is_alive():
        seen.append(time.monotonic())
        time.sleep(0.0001)
    began, ended = times
    return len({int(10 * (at - began) / (ended - began)) for at in seen if began <= at < ended})


def test_other_threads_run_while_a_long_text_is_tokenized(byte_level: Tokenizer) -> None:
    """The library's `encode` held the interpreter: a prompt of 120,000 characters stopped a worker's streams for 0.1 s.

    A machine that stops all threads for a while is asked again: `encode` let another run in one or two tenths each time.
    """
    text = "once upon a time there was a text of many words " * 8_000
    assert any(tenths_seen_by_another_thread(byte_level, text) >= 5 for _ in range(5))
