"""Frames: a little-endian u32 length, then as many bytes. Pure functions of bytes, no sockets.

The length is checked before anything is buffered for it, so a hostile length costs nothing.
"""

import struct

from appliance.errors import MalformedMessage

MAX_FRAME_BYTES = 16 << 20
_HEADER = struct.Struct("<I")
_HEADER_BYTES = _HEADER.size
_pack_header, _unpack_header = _HEADER.pack, _HEADER.unpack_from
"""Bound once: each message needs them."""


def encode_frame(payload: bytes) -> bytes:
    """Prefix `payload` with its length.

    Raises: MalformedMessage if it is larger than MAX_FRAME_BYTES.
    """
    size = len(payload)
    if size > MAX_FRAME_BYTES:
        raise MalformedMessage(f"a message of {size} bytes is larger than {MAX_FRAME_BYTES}")
    return _pack_header(size) + payload


class FrameDecoder:
    """Cuts a byte stream into frames; keeps at most one unfinished frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | memoryview) -> list[bytes]:
        """Take the next bytes of the stream and give the frames that are now whole, in order.

        Raises: MalformedMessage at a length above MAX_FRAME_BYTES; the stream is useless afterwards.
        """
        size = len(data) - _HEADER_BYTES
        if not self._buffer and 0 <= size <= MAX_FRAME_BYTES and _unpack_header(data)[0] == size:
            return [bytes(data[_HEADER_BYTES:])]  # What nearly all reads bring.
        if self._buffer:
            self._buffer += data
            stream: bytes | memoryview | bytearray = self._buffer
        else:
            stream = data  # Most reads bring whole frames, which then need not be copied twice.
        frames, start = _cut_frames(stream)
        if stream is self._buffer:
            del self._buffer[:start]
        else:
            self._buffer += data[start:]
        return frames


def _cut_frames(stream: bytes | memoryview | bytearray) -> tuple[list[bytes], int]:
    """The whole frames at the start of a stream, and where they end."""
    frames: list[bytes] = []
    start, end = 0, len(stream)
    while end - start >= _HEADER_BYTES:
        (size,) = _unpack_header(stream, start)
        if size > MAX_FRAME_BYTES:
            raise MalformedMessage(f"a frame announces {size} bytes; at most {MAX_FRAME_BYTES} are allowed")
        behind = start + _HEADER_BYTES + size
        if behind > end:
            break
        frames.append(bytes(stream[start + _HEADER_BYTES : behind]))
        start = behind
    return frames, start
