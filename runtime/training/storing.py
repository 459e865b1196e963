"""Files that are written whole or not at all: what is there is either the old content or the new."""

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from runtime.errors import TrainingStopped


def store_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write one safetensors file, replacing the one of before in one move. Readable by all, as model files are.

    Raises: TrainingStopped if the disk does not take it; the file of before is left.
    """
    _replace(
        path, lambda fresh: save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, fresh, metadata)
    )


def store_text(text: str, path: Path) -> None:
    """The same for a text. Raises: TrainingStopped."""
    _replace(path, lambda fresh: fresh.write_text(text, encoding="utf-8"))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    fresh = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(fresh)
        # safetensors gives new files to their owner alone, and every process of the appliance reads models.
        fresh.chmod(0o644)
        os.replace(fresh, path)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise TrainingStopped(f"{path}: cannot be written: {error}") from error
