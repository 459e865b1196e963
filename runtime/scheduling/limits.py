"""What a request may ask of this engine. Whatever passes can be computed to its end, alone if need be.

The gateway checks most of it before; the engine does not rely on that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from runtime.errors import RequestRejected
from runtime.identifiers import PAGE_SIZE
from runtime.request import GenerationRequest


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Sizes that bound every request."""

    vocab_size: int
    context_length: int
    """Most tokens of prompt and output together."""
    num_usable_pages: int
    max_running_requests: int

    def verify(self, request: GenerationRequest) -> None:
        """Raise RequestRejected for a request that could never be served."""
        self._verify_ids("prompt", request.prompt)
        self._verify_ids("stop_token_ids", request.sampling.stop_token_ids)
        self._verify_ids("logit_bias", list(request.sampling.logit_bias))
        self._verify_lengths(len(request.prompt), request.sampling.max_tokens, request.sampling.min_tokens)
        if request.grammar and (request.sampling.ignore_eos or request.sampling.min_tokens):
            raise RequestRejected(
                "grammar_conflict",
                "a grammar says by itself when an answer may end: ignore_eos and min_tokens cannot",
                parameter="ignore_eos" if request.sampling.ignore_eos else "min_tokens",
            )
        if request.n > self.max_running_requests:
            raise RequestRejected(
                "too_many_choices",
                f"n is {request.n}, but this engine generates at most {self.max_running_requests} answers at once",
                parameter="n",
            )

    def _verify_lengths(self, num_prompt: int, max_tokens: int, min_tokens: int) -> None:
        if num_prompt == 0:
            raise RequestRejected("empty_prompt", "the prompt holds no tokens", parameter="prompt")
        if num_prompt >= self.context_length:
            raise RequestRejected(
                "context_length_exceeded",
                f"the prompt has {num_prompt} tokens; with one token of output the context of "
                f"{self.context_length} leaves room for {self.context_length - 1}",
                parameter="prompt",
            )
        if num_prompt + max_tokens > self.context_length:
            raise RequestRejected(
                "context_length_exceeded",
                f"the prompt's {num_prompt} tokens and max_tokens of {max_tokens} exceed the context of {self.context_length}",
                parameter="max_tokens",
            )
        if min_tokens > max_tokens:
            raise RequestRejected(
                "min_tokens_above_max_tokens",
                f"min_tokens is {min_tokens}, above max_tokens of {max_tokens}",
                parameter="min_tokens",
            )
        num_pages = -(-(num_prompt + max_tokens - 1) // PAGE_SIZE)
        if num_pages > self.num_usable_pages:
            raise RequestRejected(
                "kv_capacity_exceeded",
                f"the prompt's {num_prompt} tokens and max_tokens of {max_tokens} need {num_pages} pages of KV memory; "
                f"this engine has {self.num_usable_pages}",
                parameter="max_tokens",
            )

    def _verify_ids(self, parameter: str, ids: Sequence[int]) -> None:
        if len(ids) == 0:
            return
        try:
            array = np.asarray(ids, np.int64)
        except (OverflowError, TypeError, ValueError):
            raise RequestRejected(
                "token_out_of_range", f"{parameter} is not a list of ids", parameter=parameter
            ) from None
        if array.view(np.uint64).max() >= self.vocab_size:  # Of the largest there are those below 0, too.
            where = int(np.flatnonzero((array < 0) | (array >= self.vocab_size))[0])
            raise RequestRejected(
                "token_out_of_range",
                f"{parameter} has id {int(array[where])} at place {where}; the vocabulary ends at {self.vocab_size - 1}",
                parameter=parameter,
            )
