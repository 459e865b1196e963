"""The last check before a step reaches a device."""

from runtime.batch import StepBatch


def verify_ids(batch: StepBatch, vocab_size: int, num_previous: int) -> None:
    """An id out of range would read foreign memory on a GPU, or end its context: it is a bug of the scheduler's."""
    is_known = batch.previous_rows < 0
    known = batch.token_ids[is_known]
    if known.size and not 0 <= int(known.min()) <= int(known.max()) < vocab_size:
        raise ValueError(f"token ids must lie in [0, {vocab_size}), found {int(known.min())} to {int(known.max())}")
    if not is_known.all() and int(batch.previous_rows.max()) >= num_previous:
        raise ValueError(f"previous_rows must be below {num_previous}, found {int(batch.previous_rows.max())}")
