"""How the memory of a GPU is divided: weights first, then what steps and graphs were seen to need, and the rest is KV.

What steps need is measured, not guessed: a trial runs the largest prefill and captures the largest graph over a small
cache. So the cache can take everything else, and steady state never runs out of memory.
"""

from dataclasses import dataclass, replace

from runtime.errors import EngineMisconfigured
from runtime.identifiers import PAGE_SIZE

HEADROOM_SHARE = 0.02
"""Of the card's memory, left alone: fragmentation, and what libraries take late."""
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU, by what its driver says of it."""

    name: str
    uuid: str


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """What was measured before the cache is allocated, in bytes."""

    total_bytes: int
    """Of the card."""
    foreign_bytes: int
    """Taken before the engine loaded anything: the driver's context and other programs."""
    weights_bytes: int
    step_bytes: int
    """Activations of the largest step, captured graphs, workspaces."""


@dataclass(frozen=True, slots=True)
class MemoryTable:
    """How the memory is divided, in bytes; reported at start."""

    need: MemoryNeed
    kv_bytes: int
    num_pages: int
    page_bytes: int

    @property
    def left_bytes(self) -> int:
        """What nobody is expected to use."""
        need = self.need
        return need.total_bytes - need.foreign_bytes - need.weights_bytes - need.step_bytes - self.kv_bytes

    @property
    def parts(self) -> dict[str, int]:
        """In bytes; all together are the card's memory."""
        need = self.need
        return {
            "weights": need.weights_bytes,
            "steps": need.step_bytes,
            "kv_cache": self.kv_bytes,
            "outside": need.foreign_bytes,
            "left": self.left_bytes,
        }

    def with_pages(self, num_pages: int) -> "MemoryTable":
        """The same with fewer pages."""
        return replace(self, num_pages=num_pages, kv_bytes=num_pages * self.page_bytes)

    def lines(self) -> list[str]:
        """A table for the operator, one line a row."""
        need = self.need
        rows = (
            ("weights", need.weights_bytes),
            ("steps and graphs", need.step_bytes),
            (f"KV cache, {(self.num_pages - 1) * PAGE_SIZE:,} tokens", self.kv_bytes),
            ("outside the engine", need.foreign_bytes),
            ("left", self.left_bytes),
            ("card", need.total_bytes),
        )
        return [f"{name:<32} {size / _GIB:8.2f} GiB" for name, size in rows]


def verify_weights_fit(weights_bytes: int, free_bytes: int) -> None:
    """Before anything is loaded.

    Raises: EngineMisconfigured with the sum that does not work out.
    """
    if weights_bytes > free_bytes:
        raise EngineMisconfigured(
            f"the weights need {weights_bytes / _GIB:.2f} GiB and the GPU has {free_bytes / _GIB:.2f} GiB free: "
            f"{(weights_bytes - free_bytes) / _GIB:.2f} GiB are missing, and the KV cache needs room as well"
        )


def divide_memory(
    need: MemoryNeed, *, page_bytes: int, mem_fraction_static: float, max_total_tokens: int, min_tokens: int
) -> MemoryTable:
    """Size the KV cache.

    Args:
        page_bytes: of one page in all layers.
        mem_fraction_static: share of the card for weights and cache together, as in SGLang; 0: all that steps leave.
        max_total_tokens: bound of the cache; 0: none.
        min_tokens: with fewer the engine cannot serve one request of full length.
    Raises: EngineMisconfigured with the sum.
    """
    headroom = int(need.total_bytes * HEADROOM_SHARE)
    left = need.total_bytes - need.foreign_bytes - need.weights_bytes - need.step_bytes - headroom
    if mem_fraction_static:
        static = int(need.total_bytes * mem_fraction_static) - need.weights_bytes
        if static > left:
            raise EngineMisconfigured(
                f"mem_fraction_static: {mem_fraction_static:g} gives the KV cache {static / _GIB:.2f} GiB, but steps, "
                f"graphs and {HEADROOM_SHARE:.0%} headroom leave {left / _GIB:.2f} GiB; lower it, or set 0"
            )
        left = static
    num_pages = max(0, left) // page_bytes
    if max_total_tokens:
        num_pages = min(num_pages, max_total_tokens // PAGE_SIZE + 1)
    if (num_pages - 1) * PAGE_SIZE < min_tokens:
        raise EngineMisconfigured(
            f"the KV cache would hold {max(0, num_pages - 1) * PAGE_SIZE} tokens and needs {min_tokens}: of "
            f"{need.total_bytes / _GIB:.2f} GiB the weights take {need.weights_bytes / _GIB:.2f}, steps and graphs "
            f"{need.step_bytes / _GIB:.2f}, others {need.foreign_bytes / _GIB:.2f}; "
            "lower context_length, chunked_prefill_size or cuda_graph_max_bs"
        )
    return MemoryTable(need, num_pages * page_bytes, num_pages, page_bytes)
