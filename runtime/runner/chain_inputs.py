"""What a step says of its chains, sent to the device by one copy beside the step's own (`step_inputs`)."""

from typing import Any

import numpy as np
from torch import Tensor

from runtime.batch import Int32
from runtime.runner.chains import ChainViews
from runtime.runner.step_buffers import RunnerLimits
from runtime.runner.uniform import UniformStep
from runtime.speculative.backlog import DROPPED

_ALIGNMENT = 4


class ChainLayout:
    """Offsets, in int32 words, for so many decoding sequences, chains and token rows."""

    def __init__(
        self,
        num_decodes: int,
        num_chains: int,
        num_rows: int,
        num_queries: int = 1,
        *,
        has_trees: bool = False,
        defers: bool = False,
    ) -> None:
        self.num_queries = num_queries
        self.shape = (num_decodes, num_chains, num_rows)
        widths = {
            "continued": num_decodes,
            "num_drafts": num_decodes,
            "chain_sequences": num_chains,
            "next_ids": num_rows,
            "first_pages": num_chains,
        }
        if has_trees:
            widths["parents"] = num_decodes * num_queries
        if defers:
            widths["deferred"] = num_rows
        self.spans: dict[str, slice] = {}
        end = 0
        for name, width in widths.items():
            self.spans[name] = slice(end, end + width)
            end += -(-width // _ALIGNMENT) * _ALIGNMENT
        self.num_words = end

    def views(self, buffer: Tensor) -> ChainViews:
        """The inputs as views of the device's buffer."""
        return ChainViews(**{name: buffer[span] for name, span in self.spans.items()}, num_queries=self.num_queries)


def layout_of(step: UniformStep) -> ChainLayout:
    """That of one step."""
    return ChainLayout(
        step.speculation.num_decodes,
        len(step.chain_sequences),
        len(step.batch.token_ids),
        step.num_queries,
        has_trees=step.speculation.tree is not None,
        defers=step.speculation.deferred is not None,
    )


def pack_chains(target: Int32, layout: ChainLayout, step: UniformStep) -> int:
    """Write a step's chains to `target`; returns how many words of it are used."""
    num_decodes = layout.shape[0]
    values: dict[str, Any] = {
        "continued": step.speculation.continued[:num_decodes],
        "num_drafts": step.speculation.num_drafts[:num_decodes],
        "chain_sequences": step.chain_sequences,
        "next_ids": np.maximum(step.speculation.next_ids, 0),
        "first_pages": step.speculation.first_pages,
    }
    if step.speculation.tree is not None:
        values["parents"] = step.speculation.tree.parents[: num_decodes * layout.num_queries]
    if "deferred" in layout.spans:
        deferred = step.speculation.deferred
        values["deferred"] = DROPPED if deferred is None else np.where(deferred < 0, DROPPED, deferred)
    for name, value in values.items():
        target[layout.spans[name]] = value
    return layout.num_words


def num_chain_words(limits: RunnerLimits) -> int:
    """Words that any step needs at most."""
    most = limits.max_sequences
    return ChainLayout(most, most, limits.max_rows, limits.num_queries, has_trees=True, defers=True).num_words
