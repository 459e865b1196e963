"""The device memory that steps work on, at addresses that never change, so that captured graphs may hold them.

Everything is made once, for the largest step. A step takes the first rows of each; steps run one after the other, so one
set serves all of them. What the samples' buffer holds after a step is read by the next one.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from runtime.models.fused import StepRows
from runtime.models.operations import TokenSource
from runtime.runner.step_inputs import StepViews, num_words
from runtime.weights.config import ModelConfig

_ALIGNMENT = 4


@dataclass(frozen=True, slots=True)
class RunnerLimits:
    """Sizes of the buffers, and which steps are captured."""

    max_rows: int
    """Tokens in one step."""
    max_sequences: int
    """Sequences, and samples, in one step."""
    max_table_pages: int
    """Entries of all page tables of a step together."""
    cuda_graph_max_bs: int
    """Largest captured batch of decodes; 0: none."""
    piecewise_cuda_graph_max_tokens: int
    """Most rows of other steps that are captured between their attentions; 0: none."""
    num_queries: int = 1
    """Rows, all of them sampled, of a sequence that decodes: its newest token and the drafts that are verified."""

    @property
    def max_samples(self) -> int:
        """In one step."""
        return self.max_sequences * self.num_queries

    @property
    def num_words(self) -> int:
        """Of the largest step's inputs, int32."""
        return num_words(
            max_rows=self.max_rows,
            max_sequences=self.max_sequences,
            max_samples=self.max_samples,
            max_pages=self.max_table_pages,
        )

    @property
    def num_sample_words(self) -> int:
        """Of ids and flags of as many samples as there may be."""
        return 2 * sample_stride(self.max_samples)


class StepBuffers:
    """Inputs, rows and results of one step at a time."""

    def __init__(
        self,
        config: ModelConfig,
        limits: RunnerLimits,
        *,
        dtype: torch.dtype,
        device: torch.device,
        num_captured: int = 0,
    ) -> None:
        """`num_captured`: hidden states of each row that a draft head reads."""

        def rows(*shape: int) -> Tensor:
            return torch.zeros(limits.max_rows, *shape, dtype=dtype, device=device)

        self.inputs = torch.zeros(limits.num_words, dtype=torch.int32, device=device)
        self.samples = torch.zeros(limits.num_sample_words, dtype=torch.int32, device=device)
        self.logits = torch.zeros(limits.max_samples, config.vocab_size, dtype=dtype, device=device)
        self._hidden = rows(config.hidden_size)
        self._captured = rows(num_captured * config.hidden_size) if num_captured else None
        self._query, self._attended = (rows(config.num_heads, config.head_dim) for _ in range(2))

    def rows_of(self, views: StepViews) -> StepRows:
        """The rows of a step, padding included."""
        count = views.shape.num_rows
        return StepRows(
            source=TokenSource(views.token_ids, views.previous_rows, self.samples),
            places=views.places,
            hidden=self._hidden[:count],
            query=self._query[:count],
            attended=self._attended[:count],
            captured=None if self._captured is None else self._captured[:count],
        )

    def samples_of(self, views: StepViews) -> Tensor:
        """[2, num_samples or a few more]: ids and flags, as `Operations.sample` writes them."""
        stride = sample_stride(views.shape.num_samples)
        return self.samples[: 2 * stride].view(2, stride)


def sample_stride(num_samples: int) -> int:
    """Words from the samples' ids to their flags: kernels want both aligned to 16 bytes."""
    return -(-num_samples // _ALIGNMENT) * _ALIGNMENT
