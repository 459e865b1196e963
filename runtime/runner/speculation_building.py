"""What a runner on a GPU needs to speculate, put together: the head over pages of its own, and who attends where."""

from dataclasses import dataclass
from typing import cast

import torch

from runtime.attention.device import DeviceAttention
from runtime.attention.pages import allocate_pages
from runtime.attention.triton import TritonAttention
from runtime.attention.verifying import TritonVerification
from runtime.errors import EngineMisconfigured
from runtime.identifiers import PAGE_SIZE
from runtime.kernels.launching import Launcher
from runtime.models.operations import Operations
from runtime.runner.device_drafting import ChunkAttention, SpeculationAttention, SpeculationParts
from runtime.runner.fused_chains import FusedChains
from runtime.settings import EngineSettings
from runtime.speculative.adapting import speculation_levels
from runtime.speculative.fused import FusedHead
from runtime.speculative.head import DraftHead
from runtime.weights.config import ModelConfig


@dataclass(frozen=True, slots=True)
class HeadOnDevice:
    """A loaded head and how many drafts it makes."""

    head: DraftHead
    num_steps: int
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


def verify_servable(settings: EngineSettings) -> None:
    """Whether drafts can be verified with these settings. Raises: EngineMisconfigured."""
    if settings.speculative_eagle_topk > 1:
        raise EngineMisconfigured(
            f"speculative_eagle_topk: expected 1 (a chain) on cuda, found {settings.speculative_eagle_topk}"
        )
    if settings.attention_backend == "flashinfer":
        raise EngineMisconfigured(
            "attention_backend: with speculative_algorithm expected auto or triton, found flashinfer"
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
    """Over the target's cache and one of the head's own with as many pages, which is not initialized."""
    head_config = loaded.head.config
    head_pages = allocate_pages(
        num_layers=1,
        num_pages=pages.shape[1],
        num_kv_heads=head_config.num_kv_heads,
        head_dim=head_config.head_dim,
        device=pages.device,
        dtype=loaded.head.embedding.dtype,
    )
    rows = TritonVerification(
        pages,
        num_heads=config.num_heads,
        layer_windows=config.layer_windows,
        launcher=launcher,
        max_queries=loaded.num_steps + 1,
        max_sequences=max_sequences,
        num_multiprocessors=num_multiprocessors,
        scales=scales,
        pdl=True,
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
    return SpeculationParts(
        head=FusedHead(loaded.head, operations, head_pages),
        head_pages=head_pages,
        attention=SpeculationAttention(
            target_rows=rows,
            target_decodes=attention,
            target_chunks=cast(ChunkAttention, attention),
            head=head_attention,
        ),
        chains=FusedChains(launcher),
        levels=loaded.levels or speculation_levels(loaded.num_steps),
    )
