"""Detokenizing equals the tokenizers library's decoding, a few tokens at a time and in whole characters."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as OutsideTokenizer

from appliance.gateway.text.detokenizer import Detokenizer, detokenize
from appliance.gateway.text.errors import ModelFolderRefused
from appliance.gateway.text.model_folder import TokenizerFile, load_tokenizer_file
from appliance.gateway.text.tokenizer import Tokenizer, load_tokenizer
from appliance.gateway.text.vocabulary import Vocabulary, build_vocabulary
from tests.support.model_folders import write_byte_fallback_model

DATA = os.environ.get("CASEMATE_TEST_DATA")
SHARED_MODEL = Path(DATA or "/nonexistent") / "models" / "tinystories-656k"
needs_shared_model = pytest.mark.skipif(
    not SHARED_MODEL.is_dir(), reason="CASEMATE_TEST_DATA has no models/tinystories-656k"
)
slow_fixture = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


@pytest.fixture(scope="session")
def fallback(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, OutsideTokenizer]:
    folder = write_byte_fallback_model(tmp_path_factory.mktemp("fallback"))
    return load_tokenizer(folder), OutsideTokenizer.from_file(str(folder / "tokenizer.json"))


def in_pieces(vocabulary: Vocabulary, token_ids: list[int]) -> tuple[str, list[str]]:
    detokenizer = Detokenizer(vocabulary, at_start=True)
    pieces = [detokenizer.feed(token_id) for token_id in token_ids]
    return "".join([*pieces, detokenizer.finish()]), pieces


@slow_fixture
@given(data=st.data())
def test_byte_level_equals_the_library(data: st.DataObject, byte_level: Tokenizer, byte_level_folder: Path) -> None:
    """Any ids whatever, broken characters included, read as the library reads them."""
    outside = OutsideTokenizer.from_file(str(byte_level_folder / "tokenizer.json"))
    size = len(byte_level.vocabulary)
    ids = data.draw(st.lists(st.integers(0, size - 5), max_size=40))
    assert detokenize(byte_level.vocabulary, ids) == outside.decode(ids, skip_special_tokens=True)


@slow_fixture
@given(text=st.text(max_size=40))
def test_pieces_are_whole_characters(text: str, byte_level: Tokenizer) -> None:
    """One byte a token, and still no half character and no U+FFFD ever comes out."""
    ids = list(text.encode())
    whole, pieces = in_pieces(byte_level.vocabulary, ids)
    assert whole == text
    so_far = ""
    for piece in pieces:
        so_far += piece
        assert text.startswith(so_far)


@slow_fixture
@given(data=st.data())
def test_byte_fallback_equals_the_library_where_bytes_are_characters(
    data: st.DataObject, fallback: tuple[Tokenizer, OutsideTokenizer]
) -> None:
    """Words and byte tokens mixed, as long as each run of byte tokens is text or is altogether broken."""
    tokenizer, outside = fallback
    run = st.one_of(
        st.integers(259, 265).map(lambda token_id: [token_id]),
        st.text(min_size=1, max_size=3).map(lambda text: [3 + byte for byte in text.encode()]),
    )
    ids = [token_id for piece in data.draw(st.lists(run, max_size=12)) for token_id in piece]
    assert in_pieces(tokenizer.vocabulary, ids)[0] == outside.decode(ids)


@slow_fixture
@given(run=st.lists(st.integers(0x80, 0xBF), min_size=1, max_size=5))
def test_byte_fallback_replaces_each_lost_byte(run: list[int], fallback: tuple[Tokenizer, OutsideTokenizer]) -> None:
    """Continuation bytes alone are one U+FFFD each, as the library has it."""
    tokenizer, outside = fallback
    ids = [260, *(3 + byte for byte in run), 262]
    assert in_pieces(tokenizer.vocabulary, ids)[0] == outside.decode(ids)


def test_byte_fallback_keeps_characters_before_a_broken_one(fallback: tuple[Tokenizer, OutsideTokenizer]) -> None:
    """The one difference to the library, which would take back a character that a stream has delivered."""
    tokenizer, outside = fallback
    ids = [3 + byte for byte in "é".encode() + b"\xff"]
    assert in_pieces(tokenizer.vocabulary, ids)[0] == "é\ufffd"
    assert outside.decode(ids) == "\ufffd\ufffd\ufffd"


def test_control_tokens_are_silent(byte_level: Tokenizer) -> None:
    """End-of-sequence and turn marks give no text; the marks of tool calls do."""
    ids = [ord("a"), 261, 260, 262, ord("b")]
    assert detokenize(byte_level.vocabulary, ids) == "a<tool_call>b"


def test_padding_of_the_embedding_is_silent(byte_level: Tokenizer) -> None:
    """Ids beyond the tokenizer's table exist in many models, and say nothing."""
    assert detokenize(byte_level.vocabulary, [ord("a"), 5000]) == "a"


def test_continuation_keeps_its_first_space(fallback: tuple[Tokenizer, OutsideTokenizer]) -> None:
    """A completion goes on after a prompt, so the space of its first word belongs to the text."""
    vocabulary = fallback[0].vocabulary
    assert detokenize(vocabulary, [260], at_start=False) == " a"
    assert detokenize(vocabulary, [260], at_start=True) == "a"


@needs_shared_model
@slow_fixture
@given(ids=st.lists(st.integers(260, 2047), max_size=30))
def test_shared_byte_fallback_model_equals_the_library(ids: list[int]) -> None:
    """A real SentencePiece vocabulary: any words in any order."""
    file = load_tokenizer_file(SHARED_MODEL)[1]
    vocabulary = _SHARED.setdefault("vocabulary", build_vocabulary(file))
    outside = _SHARED.setdefault("outside", OutsideTokenizer.from_file(str(SHARED_MODEL / "tokenizer.json")))
    assert detokenize(vocabulary, ids) == outside.decode(ids)


_SHARED: dict[str, object] = {}


@pytest.mark.parametrize(
    "decoder",
    [None, {"type": "WordPiece"}, {"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "CTC"}]}],
    ids=["none", "wordpiece", "ctc"],
)
def test_other_decoders_are_refused(decoder: dict[str, object] | None, byte_level_folder: Path) -> None:
    """A decoder that is not handled exactly stops the start; it is never guessed at."""
    file = load_tokenizer_file(byte_level_folder)[1]
    other = TokenizerFile(file.model, file.added_tokens, decoder, file.post_processor)
    with pytest.raises(ModelFolderRefused, match="decoder"):
        build_vocabulary(other)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[1]", b'{"model": 3}', b'{"model": {"type": "Unigram", "vocab": []}}', b"\xff"]
)
def test_malformed_tokenizer_files_are_refused(content: bytes, tmp_path: Path) -> None:
    """Nothing but the package's own refusal leaves for a broken file."""
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ModelFolderRefused):
        load_tokenizer(tmp_path)


def test_missing_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    """The message names the file."""
    with pytest.raises(ModelFolderRefused, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)
