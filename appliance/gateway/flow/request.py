"""What is asked of one model, after all of it has been checked: the same for every API."""

import array
import sys
from collections.abc import Mapping, Sequence

import msgspec

from runtime.request import SamplingParams


class Asked(msgspec.Struct, frozen=True):
    """One HTTP request's work: each prompt answered `n` times."""

    uid: str
    """The public id, as the client sees it."""
    route: str
    model: str
    prompts: Sequence[Sequence[int]]
    sampling: SamplingParams
    n: int = 1
    stops: tuple[str, ...] = ()
    priority: int = 0
    grammar: bytes = b""
    """What the output follows, compiled for this model; empty: nothing."""
    wants_embedding: bool = False
    begins_text: bool = False
    """The answer is a text of its own (chat), not the rest of the prompt's."""
    gives_text: bool = True
    """False where only the prompt is of use: what is computed after it is counted, as the engine ends no request without a
    token, and neither shown nor recorded."""
    parameters: Mapping[str, str | int] = {}
    """What of the request the audit record names."""

    def uid_of(self, index: int) -> str:
        """Id of one prompt's records: the public id, numbered where there are several prompts."""
        return self.uid if len(self.prompts) == 1 else f"{self.uid}-{index}"


def encode_prompt(token_ids: Sequence[int]) -> bytes:
    """Token ids as little-endian uint32: what crosses to the engine and what digests are over."""
    ids = array.array("I", token_ids)
    if sys.byteorder == "big":
        ids.byteswap()
    return ids.tobytes()
