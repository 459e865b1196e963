"""One choice: ids become text and tokens, and an end; quota covers what is delivered; what waits is bounded."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.gateway.errors import ClientGone, GatewayFault, PeerUnavailable, QuotaRefused
from appliance.gateway.flow.choice import ChoiceText, Piece
from appliance.gateway.flow.coverage import Coverage
from appliance.gateway.flow.mailbox import Mailbox
from appliance.gateway.peers.policy import PolicyPeer, Reservation
from appliance.gateway.text.tokenizer import Tokenizer
from appliance.messages.policy import Reserve
from runtime.request import Finish, TokenDelivery, TokenLogprobs

LOGPROBS = TokenLogprobs(-1.0, [], [])


def choice_of(tokenizer: Tokenizer, stops: tuple[str, ...] = (), *, gives_text: bool = True) -> ChoiceText:
    vocabulary = tokenizer.vocabulary
    return ChoiceText(vocabulary, stops, begins_text=True, gives_text=gives_text, shows_tokens=True, prompt=0, index=0)


def deliver(choice: ChoiceText, ids: list[int], finish: Finish | None = None) -> Piece:
    return choice.feed(TokenDelivery(1, 0, ids, [LOGPROBS] * len(ids), finish))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ids=st.lists(st.one_of(st.integers(0, 255), st.sampled_from(list("abé😀 ".encode()))), max_size=24),
    cuts=st.lists(st.integers(0, 24), max_size=4),
    end=st.sampled_from([Finish("length"), Finish("stop", 261), Finish("stop", 97)]),
)
def test_what_nothing_watches_reads_as_what_is_watched(
    ids: list[int], cuts: list[int], end: Finish, byte_level: Tokenizer
) -> None:
    """Without logprobs and stop strings a delivery is read at once: the same text, count and end as token by token, broken
    characters and an end in the middle of one included.
    """
    plain = ChoiceText(
        byte_level.vocabulary, (), begins_text=True, gives_text=True, shows_tokens=False, prompt=0, index=0
    )
    watched = choice_of(byte_level)
    if end.matched_token is not None:
        ids = [*ids, end.matched_token]
    bounds = sorted({0, *(cut for cut in cuts if cut < len(ids))})
    for start, stop in zip(bounds, [*bounds[1:], len(ids)], strict=True):
        finish = end if stop == len(ids) else None
        one = plain.feed(TokenDelivery(1, 0, ids[start:stop], None, finish))
        other = deliver(watched, ids[start:stop], finish)
        assert (one.text, one.token_ids, one.end) == (other.text, other.token_ids, other.end)
    assert "".join(plain.texts) == "".join(watched.texts)
    assert (plain.num_tokens, plain.end) == (watched.num_tokens, watched.end)


@pytest.mark.parametrize(
    ("min_tokens", "said"),
    [(0, ""), (1, ""), (2, "ab"), (3, "ab"), (4, "abab"), (5, "abab"), (6, "ababab"), (99, "ababab")],
)
@pytest.mark.parametrize("one_by_one", [True, False])
def test_no_stop_string_ends_a_choice_before_the_fewest_tokens(
    min_tokens: int, said: str, one_by_one: bool, byte_level: Tokenizer
) -> None:
    """Nor one that begins before them."""
    flags = {"begins_text": True, "gives_text": True, "shows_tokens": False}
    choice = ChoiceText(byte_level.vocabulary, ("ab",), **flags, prompt=0, index=0, min_tokens=min_tokens)
    ids = list(b"ababab")
    for part in ids if one_by_one else [None]:
        if choice.end is None:
            choice.feed(TokenDelivery(1, 0, ids if part is None else [part], None, None))
    assert "".join(choice.texts) == said
    assert (choice.end is not None) == (min_tokens < 6)


def test_a_choice_without_text_counts_what_was_computed_and_keeps_none_of_it(byte_level: Tokenizer) -> None:
    """So that neither the answer nor its hash in the log has it; its end is that it had no room."""
    choice = choice_of(byte_level, ("a",), gives_text=False)
    piece = deliver(choice, list(b"a"), Finish("stop", 97))
    assert (piece.text, piece.token_ids, piece.shown, choice.texts) == ("", [], [], [])
    assert (choice.num_tokens, choice.end, choice.cut) == (1, piece.end, False)
    assert piece.end is not None
    assert piece.end.reason == "length"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(alphabet="abé😀 ", max_size=20),
    stops=st.lists(st.text(alphabet="abé", min_size=1, max_size=3), max_size=2),
    step=st.integers(1, 5),
)
def test_text_tokens_and_counts_agree(text: str, stops: list[str], step: int, byte_level: Tokenizer) -> None:
    """However tokens come: the text ends at the first stop string, shown tokens tile it, and the count is up to its last byte."""
    choice = choice_of(byte_level, tuple(stops))
    ids = list(text.encode())
    pieces: list[Piece] = []
    for start in range(0, len(ids), step):
        pieces.append(deliver(choice, ids[start : start + step]))
        if choice.end is not None:
            break
    else:
        pieces.append(deliver(choice, [261], Finish("stop", 261)))
    shown = "".join(piece.text for piece in pieces)
    assert choice.end is not None
    if choice.cut:
        assert choice.end.matched in stops
        assert choice.num_tokens == len((shown + str(choice.end.matched)).encode())
    else:
        assert shown == text
        assert choice.num_tokens == len(ids) + 1
    tokens = [token for piece in pieces for token in piece.shown]
    assert bytes(token.token_id for token in tokens)[: len(shown.encode())] == shown.encode()
    assert len(tokens) == len(shown.encode())
    assert [piece.end for piece in pieces[:-1]] == [None] * (len(pieces) - 1)


def test_a_stop_token_is_counted_but_not_shown(byte_level: Tokenizer) -> None:
    """Also an ordinary token that a client named in `stop_token_ids`."""
    choice = choice_of(byte_level)
    piece = deliver(choice, [97, 98], Finish("stop", 98))
    assert (piece.text, choice.num_tokens, piece.end and piece.end.matched) == ("a", 2, 98)


def test_length_flushes_what_was_held_back(byte_level: Tokenizer) -> None:
    """Half a stop string and half a character at the end are text after all."""
    choice = choice_of(byte_level, ("abc",))
    assert deliver(choice, [*b"xab"]).text == "x"
    assert deliver(choice, [0xC3], Finish("length")).text == "ab\ufffd"


class FakePolicy(PolicyPeer):
    """Grants what it is told."""

    def __init__(self, grants: list[int | GatewayFault]) -> None:
        super().__init__(1.0)
        self.grants = grants
        self.num_asked = 0

    async def extend(self, reservation: Reservation) -> None:
        self.num_asked += 1
        await asyncio.sleep(0)
        grant = self.grants.pop(0)
        if isinstance(grant, GatewayFault):
            raise grant
        reservation.covered_tokens += grant


def coverage(grants: list[int | GatewayFault], covered: int = 8, most: int = 100) -> tuple[Coverage, FakePolicy]:
    policy = FakePolicy(grants)
    return Coverage(policy, Reservation(1, covered, 0, Reserve(0, "c", "c", "t", "user", "m", 1, most)), most), policy


async def test_blocks_are_asked_for_before_they_are_needed() -> None:
    """At half of a block, once; so no token waits for policy."""
    covering, policy = coverage([8, 8])
    assert [await covering.reach(number) for number in (1, 2, 3)] == [1, 2, 3]
    assert policy.num_asked == 0
    assert await covering.reach(4) == 4
    await asyncio.sleep(0.01)
    assert policy.num_asked == 1
    assert await covering.reach(9) == 9
    covering.close()


async def test_a_refusal_counts_only_when_the_answer_gets_there() -> None:
    """An answer that ends within what it has is not disturbed by a refused block."""
    refused = QuotaRefused("quota_exhausted", "no", 0)
    covering, _ = coverage([refused, refused])
    assert await covering.reach(5) == 5
    await asyncio.sleep(0.01)
    assert await covering.reach(8) == 8
    assert await covering.reach(9) == 8
    covering.close()


async def test_nothing_is_asked_beyond_the_most_that_can_come() -> None:
    """The last block is the last."""
    covering, policy = coverage([], covered=8, most=8)
    assert await covering.reach(8) == 8
    assert policy.num_asked == 0


async def test_policy_away_is_not_a_refusal() -> None:
    """It has its own error: the client may come back."""
    covering, _ = coverage(
        [PeerUnavailable("policy_unavailable", "away"), PeerUnavailable("policy_unavailable", "away")]
    )
    with pytest.raises(PeerUnavailable):
        await covering.reach(9)


async def test_mailbox_gives_all_there_is_at_once() -> None:
    """One wake-up for many deliveries."""
    box: Mailbox[int] = Mailbox(10, lambda fault: None)
    for number in range(3):
        box.put(number, 1)
    assert await box.take() == [0, 1, 2]


async def test_mailbox_overflow_ends_the_answer() -> None:
    """By the callback, which ends whoever waits for the client."""
    faults: list[GatewayFault] = []
    box: Mailbox[int] = Mailbox(10, faults.append)
    box.put(1, 10)
    assert faults == []
    box.put(2, 1)
    assert isinstance(faults[0], ClientGone)


async def test_the_first_reason_stands() -> None:
    """And what waits is dropped: nothing is delivered after the end."""
    box: Mailbox[int] = Mailbox(10, lambda fault: None)
    box.put(1, 1)
    box.fail(PeerUnavailable("audit_unavailable", "lost"))
    box.fail(PeerUnavailable("engine_unavailable", "lost"))
    box.put(2, 1)
    with pytest.raises(PeerUnavailable) as caught:
        await box.take()
    assert caught.value.code == "audit_unavailable"
