"""What is asked of the engine and what comes back, as plain values that cross process boundaries.

Token ids only: text, templates and users stay in the gateway. Every structure is tagged, bounded and strict, so that it
can be decoded from a peer that is not trusted.
"""

import array
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import msgspec

MAX_CHOICES = 64
MAX_STOP_TOKEN_IDS = 256
MAX_LOGIT_BIAS = 1024
MAX_TOP_LOGPROBS = 20
MAX_TOKENS = 1 << 20
MAX_PACKED_TOKENS = 1 << 18
"""In one message: all rows of the largest batch, under the longest speculation."""
MAX_EMBEDDING_BYTES = 1 << 18
MIN_REPETITION_PENALTY = 0.01
"""Far below, logits divided by it leave the range of their type."""

TokenIdField = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How tokens are chosen. Defaults mean "off"; a model's own defaults are applied by the gateway beforehand.

    The token at a position is a function of (seed, position, logits) only: the argmax of logits/temperature plus Gumbel
    noise hashed from seed, position and token id, after penalties, bias and masks. Temperature 0 is the plain argmax.
    """

    temperature: Annotated[float, msgspec.Meta(ge=0.0, le=100.0)] = 1.0
    top_p: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 1.0
    """0: the likeliest token alone."""
    top_k: Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)] = 0
    """0: no limit."""
    min_p: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.0
    frequency_penalty: Annotated[float, msgspec.Meta(ge=-2.0, le=2.0)] = 0.0
    presence_penalty: Annotated[float, msgspec.Meta(ge=-2.0, le=2.0)] = 0.0
    repetition_penalty: Annotated[float, msgspec.Meta(ge=MIN_REPETITION_PENALTY, le=10.0)] = 1.0
    logit_bias: Annotated[
        dict[TokenIdField, Annotated[float, msgspec.Meta(ge=-100.0, le=100.0)]], msgspec.Meta(max_length=MAX_LOGIT_BIAS)
    ] = {}
    seed: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)] = 0
    """Always set by the gateway: the client's, or a random one that the answer's record names."""
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=MAX_TOKENS)] = 16
    min_tokens: Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS)] = 0
    """End-of-sequence and stop ids cannot be chosen before this many output tokens."""
    ignore_eos: bool = False
    stop_token_ids: Annotated[tuple[TokenIdField, ...], msgspec.Meta(max_length=MAX_STOP_TOKEN_IDS)] = ()
    """Beside the model's own end-of-sequence ids."""
    logprobs: Annotated[int, msgspec.Meta(ge=-1, le=MAX_TOP_LOGPROBS)] = -1
    """-1: none; 0: the chosen token's only; k: the k most likely as well. Of the distribution before temperature and masks."""
    prompt_logprobs: Annotated[int, msgspec.Meta(ge=-1, le=MAX_TOP_LOGPROBS)] = -1


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt for the engine, answered `n` times over shared pages."""

    request_id: int
    prompt: Sequence[int]
    """An `array` of ids is read fastest."""
    sampling: SamplingParams
    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_CHOICES)] = 1
    namespace: bytes = b""
    """Keyed hash of the tenant: prefixes are shared within a namespace only."""
    priority: Annotated[int, msgspec.Meta(ge=-100, le=100)] = 0
    """Higher runs first."""
    deadline: float | None = None
    """On the engine's monotonic clock, seconds; the request ends with reason `deadline` when it passes."""
    caches_output: bool = True
    """False where the gateway may still cut the output after it ended (stop strings): then pages of output enter the prefix
    cache only by a cancel that says with `keep_tokens` how many count."""
    grammar: bytes = b""
    """Serialized, of `runtime.structured`: the output follows it. Empty: any output."""
    wants_embedding: bool = False
    """The prompt's embedding comes with its delivery."""


FinishReason = Literal["stop", "length", "cancelled", "deadline", "error"]


class Finish(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How one choice ended."""

    reason: FinishReason
    matched_token: int | None = None
    """The end-of-sequence or stop id that ended it (it is the last delivered token id)."""
    detail: str = ""
    """For `error`: a stable word such as `non_finite_logits`."""


class TokenLogprobs(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Natural logarithms of probabilities for one position, most likely first in `top_*`."""

    chosen: float
    top_ids: list[int]
    top_values: list[float]


class TokenDelivery(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Tokens of one choice that left the engine in one step (more than one under speculation)."""

    request_id: int
    choice: int
    token_ids: list[int]
    logprobs: list[TokenLogprobs] | None = None
    finish: Finish | None = None


class PackedTokens(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Tokens of many choices in one step, one each, that neither began nor ended an answer and have no logprobs.

    Three columns as little-endian bytes: a million tokens a minute are three copies of memory and no object each.
    """

    request_ids: Annotated[bytes, msgspec.Meta(max_length=8 * MAX_PACKED_TOKENS)] = b""
    """uint64."""
    choices: Annotated[bytes, msgspec.Meta(max_length=MAX_PACKED_TOKENS)] = b""
    """uint8."""
    token_ids: Annotated[bytes, msgspec.Meta(max_length=4 * MAX_PACKED_TOKENS)] = b""
    """uint32."""

    def __post_init__(self) -> None:
        if not len(self.request_ids) == 8 * len(self.choices) == 2 * len(self.token_ids):
            raise ValueError("the columns of packed tokens differ in length")

    def __len__(self) -> int:
        return len(self.choices)

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """Request id, choice and token id of each token."""
        return zip(_column("Q", self.request_ids), self.choices, _column("I", self.token_ids), strict=True)


def _column(kind: str, column: bytes) -> "array.array[int]":
    values = array.array(kind, column)
    if sys.byteorder == "big":
        values.byteswap()
    return values


class PromptDelivery(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Sent once per request, with or before its first token."""

    request_id: int
    prompt_tokens: int
    cached_tokens: int
    logprobs: list[TokenLogprobs | None] | None = None
    """One per prompt token if asked for; the first has none."""
    embedding: Annotated[bytes, msgspec.Meta(max_length=MAX_EMBEDDING_BYTES)] = b""
    """If asked for: the last hidden state of the prompt's last token, of length 1, as little-endian float32."""


class RequestSummary(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Sent once, when all choices of a request have ended and its pages are released."""

    request_id: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    """Tokens kept: those after a stop string that the gateway cut are not counted."""
    num_retractions: int
    delivered_tokens: int = 0
    """Tokens that left the engine, whatever the gateway said later of how many count."""
    num_verified: int = 0
    """Passes of the target that verified drafts of this request's choices."""
    num_proposed: int = 0
    """Drafts that they verified."""
    num_accepted: int = 0
    """Drafts that were the tokens chosen; each is a token for which no pass was needed."""
