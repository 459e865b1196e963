"""Lifecycle events reach the log, also when its disk was full for a while; what is lost is counted."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from appliance.messages.audit import AppendRefused, Recorded
from appliance.supervisor import lifecycle
from appliance.supervisor.lifecycle import LifecycleRecorder


class FakeLink:
    """Answers each message by a function of how many came before."""

    def __init__(self, answer: Callable[[int, int], msgspec.Struct]) -> None:
        self.sent: list[bytes] = []
        self._answer = answer
        self._answers: asyncio.Queue[Any] = asyncio.Queue()

    def send(self, message: Any) -> None:
        self._answers.put_nowait(self._answer(len(self.sent), message.correlation))
        self.sent.append(message.event)

    async def receive(self) -> Any:
        return await self._answers.get()

    def close(self) -> None:
        pass


async def record_one(answer: Callable[[int, int], msgspec.Struct]) -> tuple[LifecycleRecorder, FakeLink]:
    """Record one event over a fake link and wait until nothing is pending."""
    recorder, link = LifecycleRecorder(), FakeLink(answer)
    serving = asyncio.ensure_future(recorder.run(link))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    recorder.record(b"event")
    await recorder.drain(2.0)
    serving.cancel()
    return recorder, link


async def test_an_event_that_found_the_disk_full_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused as not durable, then taken: nothing is lost."""
    monkeypatch.setattr(lifecycle, "_RETRY_S", 0.01)
    recorder, link = await record_one(
        lambda count, number: AppendRefused(number, "not_durable", "full") if count == 0 else Recorded(number, 7)
    )
    assert (link.sent, recorder.num_lost) == ([b"event", b"event"], 0)


async def test_an_event_that_is_refused_for_good_is_counted() -> None:
    """Our mistake: trying again would not help."""
    recorder, link = await record_one(lambda _count, number: AppendRefused(number, "not_permitted", "no"))
    assert (link.sent, recorder.num_lost) == ([b"event"], 1)
