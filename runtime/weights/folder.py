"""What may not lie in a model folder: files that a loader somewhere would execute.

We load safetensors and JSON only, so a pickle beside them cannot hurt us. It is refused all the same: the folder is
signed, approved and copied as a whole, and the next tool to open it may not be as careful.
"""

import os
from pathlib import Path

from runtime.errors import CheckpointRejected
from runtime.weights.json_file import load_json_object

PICKLE_SUFFIXES = frozenset(
    (".bin", ".ckpt", ".dill", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pt2", ".pth")
)
CODE_SUFFIXES = frozenset((".dll", ".dylib", ".exe", ".py", ".pyc", ".pyd", ".pyo", ".pyz", ".sh", ".so"))
CONFIGURATIONS = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
)
MAX_FILES = 10_000


def verify_model_folder(folder: Path) -> None:
    """Refuse a folder that is none, or that holds pickles, code or a configuration that names code (`auto_map`).

    Subfolders count. What the weights hold is checked elsewhere (`open_checkpoint`).
    Raises: CheckpointRejected, naming the file.
    """
    if not folder.is_dir():
        raise CheckpointRejected(f"{folder}: not a folder with a model")
    num_files = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            num_files += 1
            if num_files > MAX_FILES:
                raise CheckpointRejected(f"{folder}: holds more than {MAX_FILES} files")
            _verify_name(Path(parent, name).relative_to(folder))
    for name in CONFIGURATIONS:
        if (folder / name).exists() and "auto_map" in load_json_object(folder / name):
            raise CheckpointRejected(f"{name}: auto_map names code to run; code from a model folder is never run")


def _verify_name(path: Path) -> None:
    # All suffixes: `weights.pt.gz` and `model.pkl.safetensors.bak` are no better than their inner names.
    for suffix in (suffix.lower() for suffix in path.suffixes):
        if suffix in PICKLE_SUFFIXES:
            raise CheckpointRejected(f"{path}: a pickle format ({suffix}); only safetensors are loaded, remove it")
        if suffix in CODE_SUFFIXES:
            raise CheckpointRejected(f"{path}: code ({suffix}) does not belong in a model folder, remove it")
