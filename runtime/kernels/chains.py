"""Launchers of the kernels for chains: places of rows, accepted drafts, and what the head reads of a token."""

import torch
from torch import Tensor

from runtime.identifiers import PAGE_SIZE
from runtime.kernels.launching import Launcher, Options

_ALIGNMENT = 4


def place_rows(
    token_ids: Tensor,
    positions: Tensor,
    slots: Tensor,
    context_lengths: Tensor,
    sample_positions: Tensor,
    *,
    page_starts: Tensor,
    page_ids: Tensor,
    continued: Tensor,
    num_tokens: Tensor,
    last_ids: Tensor,
    drafts: Tensor,
    num_queries: int,
    num_positions: int,
    launcher: Launcher,
) -> None:
    """Move rows to where the chains that they continue have ended; the first five are written, all but one int32.

    Args:
        token_ids, positions, slots: [num_sequences * num_queries].
        context_lengths: [num_sequences].
        sample_positions: int64, as long as `token_ids`.
        continued: [num_sequences]; -1 where rows stand right already: these get their slots only.
        num_tokens, last_ids: [max_chains], drafts: [max_chains, num_steps]: of the step before.
    Capture-safe.
    """
    launcher.launch(
        "chains.place",
        (len(continued), 1, 1),
        (
            token_ids, positions, slots, context_lengths, sample_positions, page_starts, page_ids, continued, num_tokens,
            last_ids, drafts, num_positions,
        ),
        {
            "QUERIES": num_queries,
            "NUM_STEPS": drafts.shape[1],
            "BLOCK": _power_of_two(num_queries),
            "PAGE_SIZE": PAGE_SIZE,
        },
        Options(num_warps=1),
    )  # fmt: skip


def accept_drafts(
    token_ids: Tensor,
    positions: Tensor,
    samples: Tensor,
    sample_rows: Tensor,
    *,
    num_drafts: Tensor,
    chain_sequences: Tensor,
    page_starts: Tensor,
    page_ids: Tensor,
    num_tokens: Tensor,
    last_ids: Tensor,
    num_queries: int,
    num_steps: int,
    num_positions: int,
    launcher: Launcher,
) -> tuple[Tensor, Tensor, Tensor]:
    """Count the tokens of chains and find the places of their next drafts.

    Args:
        samples: [num_samples] int32: of decodes, `num_queries` each, then one a chain.
        num_drafts: [num_decodes]; chain_sequences: [num_chains].
        num_tokens, last_ids: [at least num_chains], written.
    Returns: all int32: the last row of each chain; where the pages of its sequence start; and positions, slots and context
        lengths of the entries from there on, [3, num_steps, num_chains or a few more].
    Capture-safe.
    """
    count = len(chain_sequences)
    stride = -(-count // _ALIGNMENT) * _ALIGNMENT
    last_rows, starts = torch.empty(2, stride, dtype=torch.int32, device=samples.device)
    columns = torch.empty(3, max(1, num_steps), stride, dtype=torch.int32, device=samples.device)
    launcher.launch(
        "chains.accept",
        (count, 1, 1),
        (
            token_ids, positions, samples, sample_rows, num_drafts, chain_sequences, page_starts, page_ids, num_tokens,
            last_ids, last_rows, starts, columns, len(num_drafts), num_positions, stride,
        ),
        {
            "QUERIES": num_queries,
            "NUM_STEPS": num_steps,
            "BLOCK": _power_of_two(max(num_queries, num_steps)),
            "PAGE_SIZE": PAGE_SIZE,
        },
        Options(num_warps=1),
    )  # fmt: skip
    return last_rows[:count], starts[:count], columns[:, :, :count]


def join_normed(
    token_ids: Tensor,
    target_ids: Tensor | None,
    drafts: Tensor | None,
    step: int,
    table: Tensor,
    hidden: Tensor,
    weights: tuple[Tensor, Tensor],
    eps: float,
    *,
    launcher: Launcher,
    pdl: bool = False,
) -> Tensor:
    """[norm(rows of `table`), norm(hidden)] side by side → [num_rows, 2 * dim].

    Args:
        token_ids: [num_rows] int32; with `target_ids` [draft_vocab_size] int64 their places in it, and what is found there
            is written to `drafts[:, step]` [at least num_rows, num_steps] int32, too.
        hidden: [num_rows, dim], contiguous; weights: [dim] each.
    Capture-safe.
    """
    rows, dim = hidden.shape
    out = hidden.new_empty(rows, 2 * dim)
    block = _power_of_two(dim)
    # What is absent is never read, but has to be a pointer of a known type.
    launcher.launch(
        "chains.join",
        (rows, 1, 1),
        (
            token_ids,
            token_ids if target_ids is None else target_ids,
            token_ids if drafts is None else drafts,
            table,
            hidden,
            *weights,
            out,
            step,
        ),
        {
            "DIM": dim,
            "BLOCK": block,
            "NUM_STEPS": 1 if drafts is None else drafts.shape[1],
            "MAPPED": target_ids is not None,
            "EPS": eps,
            "PDL": pdl,
        },
        Options(num_warps=min(16, max(1, block // 512)), launch_pdl=pdl),
    )
    return out


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
