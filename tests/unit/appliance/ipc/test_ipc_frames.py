"""Frames survive any cutting of the stream, and a hostile length is refused before anything is buffered for it."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import MalformedMessage
from appliance.ipc.frames import MAX_FRAME_BYTES, FrameDecoder, encode_frame


@given(st.lists(st.binary(max_size=200), max_size=8), st.lists(st.integers(0, 400), max_size=12))
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(payloads: list[bytes], cuts: list[int]) -> None:
    """Concatenated frames, split anywhere, decode to the same payloads in order."""
    stream = b"".join(encode_frame(payload) for payload in payloads)
    edges = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    decoder = FrameDecoder()
    received = [frame for start, end in itertools.pairwise(edges) for frame in decoder.feed(stream[start:end])]
    assert received == payloads


def test_a_length_above_the_bound_is_refused_before_its_bytes_arrive() -> None:
    """Four bytes are enough to be cut off."""
    with pytest.raises(MalformedMessage, match="announces"):
        FrameDecoder().feed(struct.pack("<I", MAX_FRAME_BYTES + 1))


def test_a_message_above_the_bound_is_not_sent() -> None:
    """The sender finds its own mistake."""
    with pytest.raises(MalformedMessage):
        encode_frame(bytes(MAX_FRAME_BYTES + 1))
