"""`runtime.kernels.contexts`, interpreted."""

import pytest
import torch

from runtime.attention.flashinfer.calls import Cache
from runtime.attention.flashinfer.contexts import GatheredContexts, Span
from runtime.identifiers import PAGE_SIZE
from runtime.kernels.contexts import GAP_PAGES
from runtime.kernels.launcher import JitLauncher
from tests.support.attention_steps import Heads, in_e4m3, random_step
from tests.support.fake_flashinfer import gather


@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("heads", [Heads(4, 2, 16, torch.float16), Heads(3, 3, 24, torch.float16)])
@pytest.mark.parametrize("cache", ["fp16", "e4m3"])
def test_contexts_lie_one_behind_the_other_with_zeros_between(first: int, heads: Heads, cache: str) -> None:
    """Of all sequences and of the last ones, times their scales if the pages have any; these are NaN past their contexts, and
    none of it comes along."""
    step = random_step(
        [(40, 1), (7, 1), (33, 20), (16, 16), (129, 3)], heads, num_layers=1, device=torch.device("cpu"), seed=0
    )
    scales = None
    if cache == "e4m3":
        scales = torch.tensor([[0.37, 0.011, 0.0, 0.0]])
        step, _ = in_e4m3(step, scales)
    layer = Cache(step.pages[0, :, 0], step.pages[0, :, 1], None if scales is None else scales[0])
    num_pages = int(step.host.page_starts[-1] - step.host.page_starts[first]) + (5 - first) * GAP_PAGES
    tables, span = step.device, Span(first, 5 - first, num_pages)
    contexts = GatheredContexts(
        step.pages, JitLauncher(), dtype=torch.float16, layer_windows=(None,), max_sequences=9, max_context_length=160
    )
    contexts._room.fill_(torch.nan)
    gathered = contexts.gather(layer, tables, span)
    keys, values = torch.empty_like(gathered.keys), torch.empty_like(gathered.values)
    arguments = (
        layer.keys, layer.values, layer.scales, tables.context_lengths, tables.page_starts, tables.page_ids, keys, values,
        first, 5 - first,
    )  # fmt: skip
    gather(span.num_pages, *arguments, gap_pages=GAP_PAGES, scaled=scales is not None)
    end = PAGE_SIZE * span.num_pages
    assert torch.equal(gathered.keys[:end], keys[:end])
    assert torch.equal(gathered.values[:end], values[:end])
    assert bool(gathered.keys[end:].isnan().all()), "what lies behind is left alone"
