"""Which files a model folder may hold: a list of what is known to be data, and nothing else.

A list of what is dangerous is never complete; scanners of pickles have been passed again and again. So a file is imported if
its name is on this list, and whatever else lies in the folder stops the import. What the names hold is checked by whoever reads
them: here is no parser.
"""

import re
from collections.abc import Iterable

from security.errors import ModelFolderRejected
from security.model_signing.folder import ListedFile
from security.model_signing.names import show_name

MAX_SMALL_FILE_BYTES = 256 << 20
"""Everything but weights."""

_WEIGHTS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors")
_SMALL = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]*\.(json|jinja)"
    r"|(tokenizer|spiece|sentencepiece\.bpe)\.model|(vocab|merges|special_tokens)\.txt"
    r"|(LICENSE|LICENCE|NOTICE|COPYRIGHT|USE_POLICY|README|MODEL_CARD)[A-Za-z0-9._-]{0,40}",
)
_TEXT_SUFFIXES = re.compile(r"(\.(md|txt|rst))?")
_PROBLEMS_SHOWN = 10


def verify_allowed(files: Iterable[ListedFile]) -> None:
    """Check every name against the list, and the size of all but weights.

    Raises: ModelFolderRejected, a line for each file.
    """
    problems = [f"{show_name(file.name)}: {problem}" for file in files if (problem := _problem_of(file))]
    if problems:
        more = [f"… and {len(problems) - _PROBLEMS_SHOWN} files more"] if len(problems) > _PROBLEMS_SHOWN else []
        raise ModelFolderRejected("\n".join(problems[:_PROBLEMS_SHOWN] + more))


def is_weights(name: str) -> bool:
    """Whether a file of this name holds tensors."""
    return _WEIGHTS.fullmatch(name.rpartition("/")[2]) is not None


def is_licence(name: str) -> bool:
    """Whether a file of this name, at the top of a folder, holds a licence's text."""
    return re.fullmatch(r"(?i)(licen[cs]e|notice|use_policy)[a-z0-9._-]*", name) is not None


def _problem_of(file: ListedFile) -> str | None:
    name = file.name.rpartition("/")[2]
    if is_weights(name):
        return None
    if not _is_small(name):
        return (
            "not a kind of file that a model folder may hold: safetensors, JSON, tokenizer, template and licence files"
        )
    if file.size_bytes > MAX_SMALL_FILE_BYTES:
        return f"{file.size_bytes} bytes; only weights may be larger than {MAX_SMALL_FILE_BYTES}"
    return None


def _is_small(name: str) -> bool:
    if not _SMALL.fullmatch(name):
        return False
    if name.endswith((".json", ".jinja", ".model", ".txt")):
        return True
    # `README.py` and `LICENSE.sh` are code, whatever they are called.
    stem, dot, suffix = name.rpartition(".")
    return not dot or not stem or _TEXT_SUFFIXES.fullmatch(f".{suffix}") is not None
