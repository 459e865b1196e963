"""What waits for the disk of a response that is made: shown, written once, bounded, and ended in one way only."""

import asyncio
from typing import Any

import msgspec

from appliance.gateway.api.background_store import Key, Page
from appliance.gateway.api.dialects import RESPONSES
from appliance.gateway.api.running import MAX_UNWRITTEN_BYTES, Running
from appliance.gateway.errors import GatewayFault

KEY = Key("acme", "resp_1")


class Words:
    """Says that a response is over, in one way or the other."""

    dialect = RESPONSES

    def __init__(self) -> None:
        self.response = {"status": "in_progress"}

    @property
    def record(self) -> bytes:
        return msgspec.json.encode(self.response)

    def finish(self) -> list[dict[str, Any]]:
        self.response = {"status": "completed"}
        return [{"type": "item.done"}, {"type": "response.completed"}]

    def recall(self) -> list[dict[str, Any]]:
        self.response = {"status": "cancelled"}
        return [{"type": "response.cancelled"}]


def make() -> tuple[Running, Words, list[GatewayFault]]:
    words, faults = Words(), list[GatewayFault]()
    return Running(KEY, words, faults.append, is_streamed=True), words, faults  # type: ignore[arg-type]


def kinds(page: Page) -> list[str]:
    return [event.partition(b"\n")[0].decode().removeprefix("event: ") for event in page.events]


def test_events_wait_until_they_are_written() -> None:
    """What was not in the page stays; what was is the file's to give; who listens is woken by what is new."""
    running, _, _ = make()
    waker = asyncio.Event()
    running.publish([{"type": "a"}, {"type": "b"}])
    page = running.page
    assert running.events_from(KEY, 2, waker) == []
    running.publish([{"type": "c"}])
    assert waker.is_set()
    assert not running.take(page, "written")
    assert (running.page.first, kinds(running.page)) == (2, ["c"])
    assert running.events_from(KEY, 1, waker) is None
    assert running.events_from(KEY, 2, waker) == running.page.events
    assert running.events_from(KEY, 1000, waker) == []


def test_the_end_is_written_before_it_is_shown() -> None:
    """With the page that has it, the response is over."""
    running, words, _ = make()
    waker = asyncio.Event()
    before = running.page
    running.end(words.finish(), b": outcome\n\n")
    assert running.events_from(KEY, 0, waker) == []
    page = running.page
    assert (kinds(page), page.ending, page.is_cancelled) == (["item.done", "response.completed"], words.record, False)
    assert page.events[-1].endswith(b": outcome\n\n")
    assert not running.take(before, "written")
    assert running.take(page, "written")


def test_whoever_cancels_in_time_has_it_cancelled() -> None:
    """Before its end or after, up to the moment in which that is written: with one last event, and no completion."""
    for ends_first in (True, False):
        running, words, faults = make()
        if ends_first:
            running.end(words.finish())
            assert not running.take(running.page, "cancelled")
        else:
            running.cancel()
            assert [fault.code for fault in faults] == ["cancelled"]
            running.end(words.finish())
        running.cancel()
        page = running.page
        assert (kinds(page), page.is_cancelled) == (["item.done", "response.cancelled"], True)
        assert page.ending == b'{"status":"cancelled"}'
        assert running.take(page, "written")


def test_what_is_gone_ends_its_answer() -> None:
    """Nothing more is written of it."""
    running, _, faults = make()
    assert running.take(running.page, "gone")
    assert len(faults) == 1


def test_a_disk_that_takes_nothing_ends_the_answer() -> None:
    """Before its events take the worker's memory."""
    running, _, faults = make()
    large = {"type": "a", "delta": "x" * (1 << 20)}
    running.publish([large] * 7)
    assert not faults
    running.take(running.page, "written")
    running.publish([large] * 7)
    assert not faults
    running.publish([large])
    assert not faults, "the last may be large by itself"
    running.publish([{"type": "a"}])
    assert [fault.code for fault in faults] == ["responses_unavailable"]
    assert MAX_UNWRITTEN_BYTES == 8 << 20
