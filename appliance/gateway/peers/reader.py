"""The reader as the gateway sees it: searches, records and tiles of the log, for auditors."""

import time
from collections.abc import Callable
from typing import TypeVar

import msgspec

from appliance.gateway.errors import BadRequest, Forbidden, InternalFault, NotFound, PeerUnavailable
from appliance.gateway.peers.links import Link
from appliance.gateway.peers.questions import Questions
from appliance.messages.reading import MAX_TILE_BYTES, CheckpointNote, ReaderStatus, ReadRefused, RecordsFound, TilePart

_Answer = TypeVar("_Answer")


class ReaderPeer:
    """The one reader. It may be away: then nobody reads, and all else is served."""

    def __init__(self, timeout_s: float) -> None:
        self._questions = Questions("reader_unavailable", "the log's reader", timeout_s)
        self.status: ReaderStatus | None = None
        self.status_at = 0.0

    async def run(self, link: Link) -> None:
        """Serve one link until it ends. Raises: LinkClosed."""
        self._questions.attach(link)
        try:
            while True:
                message = await link.receive()
                if isinstance(message, ReaderStatus):
                    self.status, self.status_at = message, time.monotonic()
                else:
                    self._questions.answer(message.correlation, message)
        finally:
            if self._questions.detach(link):
                self.status = None

    async def find(self, build: Callable[[int], msgspec.Struct]) -> RecordsFound:
        """Records. Raises: BadRequest, Forbidden, NotFound, PeerUnavailable, InternalFault."""
        return _checked(await self._questions.ask(build), RecordsFound)

    async def fetch_tile(self, build: Callable[[int, int], msgspec.Struct]) -> bytes:
        """A whole tile; `build` is given a correlation and the offset of a part.

        Raises: Forbidden, NotFound, PeerUnavailable, InternalFault.
        """
        data = bytearray()
        while True:
            offset = len(data)
            part = _checked(await self._questions.ask(lambda number: build(number, offset)), TilePart)  # noqa: B023
            data += part.data
            if len(data) == part.size_bytes:
                return bytes(data)
            if not part.data or not len(data) < part.size_bytes <= MAX_TILE_BYTES:
                size = f"{len(data)} bytes of {part.size_bytes}"
                raise InternalFault("internal_error", f"the reader gave {size} of a tile")

    async def fetch_checkpoint(self, build: Callable[[int], msgspec.Struct]) -> bytes:
        """A signed checkpoint. Raises: Forbidden, NotFound, PeerUnavailable, InternalFault."""
        return _checked(await self._questions.ask(build), CheckpointNote).note


def _checked(answer: object, expected: type[_Answer]) -> _Answer:
    if isinstance(answer, expected):
        return answer
    if isinstance(answer, ReadRefused):
        match answer.code:
            case "not_found":
                raise NotFound("record_not_found", answer.message)
            case "not_allowed":
                raise Forbidden("not_allowed", answer.message, 'Bearer realm="casemate"')
            case "invalid":
                raise BadRequest("invalid_parameter", answer.message)
            case "unrecorded" | "unreadable":
                raise PeerUnavailable("reader_unavailable", answer.message)
    raise InternalFault("internal_error", f"the reader answered with {type(answer).__name__}")
