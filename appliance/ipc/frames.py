"""Frames: a little-endian u32 length, then as many bytes. Pure functions of bytes, no sockets.

The length is checked before anything is buffered for it, so a hostile length costs nothing.
"""

import struct

from appliance.errors import MalformedMessage

MAX_FRAME_BYTES = 16 << 20
_HEADER = struct.Struct("<I")


def encode_frame(payload: bytes) -> bytes:
    """Prefix `payload` with its length.

    Raises: MalformedMessage if it is larger than MAX_FRAME_BYTES.
    """
    if len(payload) > MAX_FRAME_BYTES:
        raise MalformedMessage(f"a message of {len(payload)} bytes is larger than {MAX_FRAME_BYTES}")
    return _HEADER.pack(len(payload)) + payload


class FrameDecoder:
    """Cuts a byte stream into frames; keeps at most one unfinished frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | memoryview) -> list[bytes]:
        """Take the next bytes of the stream and give the frames that are now whole, in order.

        Raises: MalformedMessage at a length above MAX_FRAME_BYTES; the stream is useless afterwards.
        """
        buffer = self._buffer
        if not buffer and _HEADER.size <= len(data) <= MAX_FRAME_BYTES and _size_of(data) == len(data) - _HEADER.size:
            return [bytes(data[_HEADER.size :])]  # One message and nothing else: what most reads bring.
        buffer += data
        frames: list[bytes] = []
        start = 0
        while len(buffer) - start >= _HEADER.size:
            (size,) = _HEADER.unpack_from(buffer, start)
            if size > MAX_FRAME_BYTES:
                raise MalformedMessage(f"a frame announces {size} bytes; at most {MAX_FRAME_BYTES} are allowed")
            end = start + _HEADER.size + size
            if len(buffer) < end:
                break
            frames.append(bytes(buffer[start + _HEADER.size : end]))
            start = end
        del buffer[:start]
        return frames


def _size_of(data: bytes | memoryview) -> int:
    size: int = _HEADER.unpack_from(data)[0]
    return size
