"""The device's memory between an engine that has answered and a training that begins."""

import torch


def release_device_memory() -> None:
    """Give back what nothing refers to any more; without a GPU there is nothing to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
