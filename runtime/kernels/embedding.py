"""Embeddings of a step's tokens; the id of a token may still be a sample of the step before, on the device."""

from torch import Tensor

from runtime.kernels.launching import Launcher, Options

_BLOCK = 2048


def gather_embeddings(
    token_ids: Tensor,
    previous_rows: Tensor,
    previous_ids: Tensor,
    embedding: Tensor,
    *,
    out: Tensor,
    launcher: Launcher,
    pdl: bool = False,
) -> None:
    """out[i] = embedding[previous_ids[previous_rows[i]] if previous_rows[i] >= 0 else token_ids[i]].

    Args:
        token_ids: [rows] int32 or int64.
        previous_rows: [rows] int32 or int64.
        previous_ids: [any] int32 or int64.
        embedding: [vocab_size, dim]; out: [rows, dim]. Ids are not checked: the runner has.
    Capture-safe.
    """
    rows, dim = out.shape
    block = min(_BLOCK, 1 << (dim - 1).bit_length())
    launcher.launch(
        "embedding.gather",
        (rows, -(-dim // block), 1),
        (token_ids, previous_rows, previous_ids, embedding, out),
        {"DIM": dim, "BLOCK": block, "PDL": pdl},
        Options(num_warps=4, launch_pdl=pdl),
    )
