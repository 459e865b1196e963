"""Questions to a peer: each answer finds its question, and every question ends."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from appliance.errors import LinkClosed
from appliance.gateway.errors import PeerUnavailable
from appliance.gateway.peers.questions import Questions


class Asked(msgspec.Struct):
    number: int


class FakeLink:
    """Remembers what was asked."""

    peer_instance = 0

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.is_open = True

    def send(self, message: Any) -> None:
        if not self.is_open:
            raise LinkClosed("closed")
        self.numbers.append(message.number)

    async def receive(self) -> Any:
        raise NotImplementedError

    async def serve(self, handle: Callable[[Any], None]) -> None:
        raise NotImplementedError


def connected(timeout_s: float = 5.0) -> tuple[Questions, FakeLink]:
    questions, link = Questions("away", "the peer", timeout_s), FakeLink()
    questions.attach(link)
    return questions, link


def asking(questions: Questions, link: FakeLink) -> tuple["asyncio.Future[Any]", int]:
    """A question under way, and its number."""
    return questions.ask(Asked), link.numbers[-1]


async def test_answers_find_their_questions_in_any_order() -> None:
    """And one that nobody waits for is dropped."""
    questions, link = connected()
    tasks = [asking(questions, link) for _ in range(3)]
    for task, number in reversed(tasks):
        questions.answer(number, f"answer {number}")
        questions.answer(number, "again")
        assert await task == f"answer {number}"
    questions.answer(99, "nobody asked")


async def test_a_question_without_an_answer_fails_when_its_time_is_over() -> None:
    """Those before and after it that were answered change nothing, and one timer serves them all."""
    questions, link = connected(timeout_s=0.05)
    early, early_number = asking(questions, link)
    questions.answer(early_number, "soon")
    silent, _ = asking(questions, link)
    late, late_number = asking(questions, link)
    questions.answer(late_number, "in time")
    assert [await early, await late] == ["soon", "in time"]
    with pytest.raises(PeerUnavailable, match=r"did not answer within 0\.05 s"):
        await silent
    after, after_number = asking(questions, link)
    questions.answer(after_number, "goes on")
    assert await after == "goes on"
    last, _ = asking(questions, link)
    with pytest.raises(PeerUnavailable, match=r"did not answer within 0\.05 s"):
        await last


async def test_a_lost_link_fails_what_is_open_and_what_comes() -> None:
    """At once, whatever time there was."""
    questions, link = connected()
    open_question, _ = asking(questions, link)
    assert questions.detach(link)
    with pytest.raises(PeerUnavailable, match="was lost"):
        await open_question
    with pytest.raises(PeerUnavailable):
        await questions.ask(Asked)


async def test_a_link_that_closes_while_asking_is_a_lost_one() -> None:
    """The sender is told, not left waiting."""
    questions, link = connected()
    link.is_open = False
    with pytest.raises(PeerUnavailable, match="was lost"):
        await questions.ask(Asked)


async def test_a_question_that_is_given_up_leaves_nothing_behind() -> None:
    """Its answer finds nobody, its time passes unheard, and others are answered as ever."""
    questions, link = connected(timeout_s=0.02)
    given_up, number = asking(questions, link)
    given_up.cancel()
    questions.answer(number, "too late")
    silent, _ = asking(questions, link)
    silent.cancel()
    await asyncio.sleep(0.03)
    after, after_number = asking(questions, link)
    questions.answer(after_number, "goes on")
    assert await after == "goes on"


@pytest.mark.parametrize("how", ["late", "given up"])
async def test_what_is_answered_when_nobody_waits_goes_to_who_was_named_for_it(how: str) -> None:
    """Once: what is awaited, and what nobody was named for, does not."""
    questions, link = connected(timeout_s=0.01 if how == "late" else 5.0)
    belated: list[Any] = []
    waiting = questions.ask(Asked, belated.append)
    number = link.numbers[-1]
    if how == "late":
        with pytest.raises(PeerUnavailable):
            await waiting
    else:
        waiting.cancel()
    questions.answer(number, "late")
    questions.answer(number, "again")
    in_time = questions.ask(Asked, belated.append)
    questions.answer(link.numbers[-1], "in time")
    assert (await in_time, belated) == ("in time", ["late"])


async def test_with_its_link_an_answer_that_is_late_is_forgotten() -> None:
    """The peer holds nothing for a link that ended."""
    questions, link = connected()
    belated: list[Any] = []
    waiting = questions.ask(Asked, belated.append)
    questions.detach(link)
    with pytest.raises(PeerUnavailable):
        await waiting
    questions.attach(link)
    questions.answer(link.numbers[-1], "of another life")
    assert not belated


async def test_a_question_that_cannot_be_put_is_not_waited_for() -> None:
    """What fails while a question is made leaves the link to the others."""
    questions, link = connected()

    def fail(number: int) -> Asked:
        raise ValueError(number)

    with pytest.raises(ValueError, match="1"):
        questions.ask(fail)
    after, after_number = asking(questions, link)
    questions.answer(after_number, "goes on")
    assert await after == "goes on"
