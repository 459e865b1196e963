"""What a runner on a GPU needs to speculate, put together: the head over pages of its own, and who attends where."""

from dataclasses import dataclass
from functools import partial
from typing import cast

import torch

from runtime.attention.device import DeviceAttention
from runtime.attention.invariant import InvariantAttention, InvariantRows
from runtime.attention.pages import allocate_pages
from runtime.attention.triton import TritonAttention
from runtime.attention.verifying import TritonVerification, VerifyAttention
from runtime.draft_shape import DraftShape
from runtime.identifiers import PAGE_SIZE
from runtime.kernels.launching import Launcher
from runtime.models.operations import Operations
from runtime.runner.fused_chains import FusedChains
from runtime.runner.speculation_parts import ChunkAttention, SpeculationAttention, SpeculationParts
from runtime.speculative.adapting import speculation_levels
from runtime.speculative.fused import FusedHead
from runtime.speculative.head import DraftHead
from runtime.weights.config import ModelConfig


@dataclass(frozen=True, slots=True)
class HeadOnDevice:
    """A loaded head and what drafts it makes."""

    head: DraftHead
    shape: DraftShape
    digest: str
    levels: tuple[int, ...] = ()
    """See `HeadSource.levels`."""

    @property
    def page_bytes(self) -> int:
        """Of one page of its own cache."""
        return self.head.config.kv_elements_per_token * PAGE_SIZE * self.head.embedding.element_size()

    @property
    def weights_bytes(self) -> int:
        """Beside those of its target."""
        return self.head.num_bytes

    def allocate_pages(self, num_pages: int, device: torch.device) -> torch.Tensor:
        """Its own cache, [1, num_pages, …] as `runtime.attention.pages` has it; not initialized."""
        config = self.head.config
        return allocate_pages(
            num_layers=1,
            num_pages=num_pages,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            device=device,
            dtype=self.head.embedding.dtype,
        )


def build_speculation(
    loaded: HeadOnDevice,
    config: ModelConfig,
    pages: torch.Tensor,
    attention: DeviceAttention,
    operations: Operations,
    launcher: Launcher,
    *,
    max_sequences: int,
    scales: torch.Tensor | None,
    num_multiprocessors: int,
) -> SpeculationParts:
    """Over the target's cache and one of the head's own with as many pages.

    Only the target needs to be as `deterministic` asks: which drafts it is shown changes no token, as one is taken if it is what
    would have come without it.
    """
    verification = partial(
        TritonVerification,
        launcher=launcher,
        max_sequences=max_sequences,
        num_multiprocessors=num_multiprocessors,
        pdl=True,
    )
    head_config = loaded.head.config
    # Zeros: drafts that nobody will use are made from what lies there, and should be token ids all the same.
    head_pages = loaded.allocate_pages(pages.shape[1], pages.device).zero_()
    if isinstance(attention, InvariantAttention):
        rows: VerifyAttention = InvariantRows(attention)
    else:
        rows = verification(
            pages,
            num_heads=config.num_heads,
            layer_windows=config.layer_windows,
            max_queries=loaded.shape.num_drafts + 1,
            scales=scales,
        )
    head_attention = TritonAttention(
        head_pages,
        num_heads=head_config.num_heads,
        layer_windows=(None,),
        launcher=launcher,
        max_decodes=max_sequences,
        num_multiprocessors=num_multiprocessors,
        pdl=True,
    )
    head_rows = None
    if loaded.shape.is_tree:
        head_rows = verification(
            head_pages, num_heads=head_config.num_heads, layer_windows=(None,), max_queries=loaded.shape.topk
        )
    return SpeculationParts(
        head=FusedHead(loaded.head, operations, head_pages),
        head_pages=head_pages,
        attention=SpeculationAttention(
            target_rows=rows,
            target_decodes=attention,
            target_chunks=cast(ChunkAttention, attention),
            head=head_attention,
            head_rows=head_rows,
        ),
        chains=FusedChains(launcher),
        levels=loaded.levels or speculation_levels(loaded.shape.num_steps),
        shape=loaded.shape,
    )
