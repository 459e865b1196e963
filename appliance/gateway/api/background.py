"""Responses made in the background: by this worker, whoever listens; and what any worker can say of any of them.

A response lives in the worker that took its request, as an answer like all others: its quota is reserved and its intent durable
before its request is answered. What it says goes to the shared file twice a second, so that every worker can give it
(`background_store`); a listener of this worker gets it at once. The last event is shown when the whole response is on the disk.

What always holds: a response that was begun ends, if not by its worker then by whoever asks for it after its worker died. Nobody
is waited for: its caller may leave, its token expire or be revoked, as with a stream that has begun.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress

import msgspec
import structlog

from appliance.gateway.api.background_store import BackgroundStore, Key
from appliance.gateway.api.dialects import RESPONSES
from appliance.gateway.api.mirrors import Mirrors
from appliance.gateway.api.response_store import Kept, ResponseStore
from appliance.gateway.api.response_words import ResponseWords, error_of
from appliance.gateway.api.running import Running
from appliance.gateway.errors import GatewayFault, InternalFault, NotFound, PeerUnavailable
from appliance.gateway.flow.answer import Answer
from appliance.gateway.sse import comment

WRITE_INTERVAL_S = 0.5
"""How often a worker writes what is new of all that it makes, and sees what was cancelled."""
CANCEL_WAITS_S = (0.02, 0.05, 0.1, 0.2, 0.4, 0.5, 0.5)
"""How long a cancellation waits for the maker to end, so as to show the end, and when it looks."""

log = structlog.get_logger(__name__)

Told = Callable[[GatewayFault | None], None]


class Background:
    """One worker's own."""

    def __init__(self, store: ResponseStore, longest_s: float) -> None:
        """`longest_s`: the longest life of an answer."""
        self._kept = store
        self._store = BackgroundStore(store)
        self._mirrors = Mirrors(self._store)
        self._longest_s = longest_s
        self._running: dict[Key, Running] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._writing: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
        """Something waits to be written at once."""

    async def start(self, key: Key, answer: Answer, words: ResponseWords, *, is_streamed: bool, told: Told) -> None:
        """Make a response. When this returns it is begun, and kept.

        Args:
            told: called at its end, with what went wrong.
        Raises: GatewayFault for whatever keeps it from beginning: then there is no response.
        """
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        running = Running(key, words, answer.fail, is_streamed=is_streamed)
        self._spawn(self._make(running, answer, words, begun, told))
        await begun

    async def load(self, key: Key) -> Kept | None:
        """A response that is kept, however it was made; over, if its maker is dead. Raises: PeerUnavailable."""
        kept = await self._kept.get(key.tenant, key.response_id)
        if kept is None or not kept.is_lost:
            return kept
        await self._end_lost(key, kept)
        return await self._kept.get(key.tenant, key.response_id)

    async def cancel(self, key: Key) -> None:
        """End one, whoever makes it; nothing happens to what is over. Raises: PeerUnavailable."""
        await self._store.cancel(key)
        if (running := self._running.get(key)) is not None:
            running.cancel()
        for wait_s in CANCEL_WAITS_S:
            kept = await self.load(key)
            if kept is None or not kept.is_running:
                return
            await asyncio.sleep(wait_s)

    async def events(self, key: Key, number: int, waker: asyncio.Event) -> AsyncGenerator[list[bytes], None]:
        """A response's events from a sequence number on, as they come, to its end.

        Args:
            waker: may be set from outside, to have the caller looked at, who then gets an empty list.
        Raises: NotFound if it is forgotten meanwhile, PeerUnavailable.
        """
        while True:
            waker.clear()
            running = self._running.get(key)
            source = self._mirrors if running is None else running
            events = source.events_from(key, number, waker)
            if events is None:
                read = await self._store.read_events(key, number)
                if read is None:
                    raise NotFound("response_not_found", f"the response {key.response_id!r} was forgotten meanwhile")
                events = read.events
                if read.is_lost:
                    await self.load(key)
                    continue
                if not events and read.state == "over":
                    return
                if not events:
                    self._mirrors.watch(key, read.next_number, waker)
            yield events
            number += len(events)
            if not events:
                await waker.wait()

    async def close(self, timeout_s: float) -> None:
        """Bring what has ended to the disk; what cannot be is told as lost by whoever looks for it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while waited := [*self._tasks, *([self._writing] if self._writing is not None else [])]:
                    await asyncio.wait(waited)
                    await asyncio.sleep(0)
        self._kept.lives.close()

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _make(
        self, running: Running, answer: Answer, words: ResponseWords, begun: "asyncio.Future[None]", told: Told
    ) -> None:
        """The supervision point of one response: whatever ends it is recorded, and disturbs nothing else."""
        fault: GatewayFault | None = None
        try:
            async with answer:
                await self._begin(running, answer, words)
                if not begun.done():
                    begun.set_result(None)
                while pieces := await answer.next_pieces():
                    running.publish(event for piece in pieces for event in words.piece(piece))
            outcome = comment(f"casemate-audit-outcome {answer.outcome_indices}")
            running.end(words.finish(answer.generations), outcome)
        except GatewayFault as error:
            fault = error
        except Exception:  # the supervision point of one response
            log.exception("request_failed", request_id=running.key.response_id)
            message = f"an internal error, recorded with request id {running.key.response_id}"
            fault = InternalFault("internal_error", message)
        if fault is not None and not begun.done():
            begun.set_exception(fault)
            return
        if fault is not None:
            running.stop(fault)
        told(fault)
        self._ended.set()

    async def _begin(self, running: Running, answer: Answer, words: ResponseWords) -> None:
        await self._store.begin(running.key, words.record, is_streamed=running.is_streamed, lasts_s=self._longest_s)
        answer.response_started = True
        running.publish(words.begin(answer.generations))
        self._running[running.key] = running
        if self._writing is None or self._writing.done():
            self._writing = asyncio.ensure_future(self._write_all())

    async def _write_all(self) -> None:
        """Write what is new, for as long as anything runs."""
        is_failing = False
        while self._running:
            with suppress(TimeoutError):
                async with asyncio.timeout(WRITE_INTERVAL_S):
                    await self._ended.wait()
            self._ended.clear()
            written = list(self._running.values())
            pages = [running.page for running in written]
            try:
                verdicts = await self._store.write(pages)
            except PeerUnavailable as fault:
                if not is_failing:
                    log.error("responses_not_written", reason=str(fault), number=len(pages))
                is_failing = True
                await asyncio.sleep(WRITE_INTERVAL_S)
                self._ended.set()
                continue
            is_failing = False
            for running, page, verdict in zip(written, pages, verdicts, strict=True):
                if running.take(page, verdict):
                    self._running.pop(running.key).wake()
        self._writing = None

    async def _end_lost(self, key: Key, kept: Kept) -> None:
        """Its worker died: it failed, or was cancelled."""
        record = msgspec.json.decode(kept.body)
        is_cancelled = kept.state == "cancelling"
        status = "cancelled" if is_cancelled else "failed"
        fault = InternalFault("worker_lost", "the worker that made the response was ended")
        response = record["response"] | {"status": status, "error": None if is_cancelled else error_of(fault)}
        body = msgspec.json.encode(record | {"response": response})

        def terminal(number: int) -> bytes:
            return RESPONSES.event({"type": f"response.{status}", "sequence_number": number, "response": response})

        await self._store.end_lost(key, kept.worker, body, terminal)
