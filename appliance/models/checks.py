"""What an import looks at before a model enters quarantine, with the very readers that will load it later.

| check | refuses |
|---|---|
| tensors | pickles, code, `auto_map`, headers with duplicate keys, holes, overlaps, tensors that the configuration does not have, or has with another shape or type |
| headers | the same of safetensors files in subfolders (draft heads, adapters), as far as a file alone can tell |
| text | a tokenizer that is not handled exactly, a template that does not compile, or that does not render in the sandbox |

All of it reads headers and small files; no weights are read, so a file of 70 GB that is not what its header says costs nothing.
"""  # noqa: E501

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from appliance.errors import ApplianceFault
from appliance.gateway.text.errors import ModelFolderRefused, TextRefused
from appliance.gateway.text.template import Message, load_chat_template
from appliance.gateway.text.tokenizer import load_tokenizer
from runtime.errors import CheckpointRejected
from runtime.weights.checkpoint import open_checkpoint, read_exactly
from runtime.weights.config import load_model_config
from runtime.weights.folder import verify_model_folder
from runtime.weights.header import LENGTH_BYTES, parse_header, parse_header_length
from runtime.weights.json_file import load_json_object, open_regular_file
from security.errors import ModelFolderRejected
from security.stewards.importing import Check

_MAX_TEMPLATE_CHARS = 1 << 20
_TEMPLATE_TIMEOUT_S = 2.0
_SAMPLE: tuple[Message, ...] = (
    {"role": "system", "content": "You are helpful."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hello. How can I help?"},
    {"role": "user", "content": "What is 2 + 2?"},
)


def checks_of(kind: str) -> tuple[Check, ...]:
    """The checks for a `model`, or for a `draft` head or an `adapter`, which has no text side and no decoder of its own."""
    return (check_tensors, check_headers, check_text) if kind == "model" else (check_headers,)


def check_tensors(folder: Path) -> Mapping[str, str | int]:
    """The checkpoint against its configuration: names, shapes, types, sizes."""
    try:
        config = load_model_config(folder)
        with open_checkpoint(folder, config) as checkpoint:
            num_tensors = sum(len(shard.tensors) for shard in checkpoint.shards)
            return {"num_tensors": num_tensors, "weight_bytes": checkpoint.size_bytes, "num_layers": config.num_layers}
    except CheckpointRejected as error:
        raise ModelFolderRejected(str(error)) from None


def check_headers(folder: Path) -> Mapping[str, str | int]:
    """Every safetensors header and every JSON file of the folder, subfolders included."""
    num_headers = 0
    try:
        verify_model_folder(folder)
        for path in _files_below(folder):
            if path.suffix == ".safetensors":
                _verify_header(path)
                num_headers += 1
            elif path.suffix == ".json" and path.name != "tokenizer.json":
                _verify_json(path)
    except CheckpointRejected as error:
        raise ModelFolderRejected(str(error)) from None
    if not num_headers:
        raise ModelFolderRejected(f"{folder}: holds no safetensors file")
    return {"num_weight_files": num_headers}


def check_text(folder: Path) -> Mapping[str, str | int]:
    """Tokenizer and chat template: loaded as the gateway does, and rendered once, bounded."""
    try:
        tokenizer = load_tokenizer(folder)
        template = load_chat_template(folder, tokenizer, max_chars=_MAX_TEMPLATE_CHARS, timeout_s=_TEMPLATE_TIMEOUT_S)
        num_tokens = _render_sample(template.render) if template.exists else 0
    except ModelFolderRefused as error:
        raise ModelFolderRejected(str(error)) from None
    except (TextRefused, ApplianceFault) as error:
        raise ModelFolderRejected(f"chat template: cannot render a plain conversation: {error}") from None
    return {"has_template": int(template.exists), "sample_tokens": num_tokens}


def _render_sample(render: Callable[[list[Message]], list[int]]) -> int:
    try:
        return len(render(list(_SAMPLE)))
    except TextRefused:
        # Some models know no system role; none is without user and assistant.
        return len(render(list(_SAMPLE[1:])))


def _verify_header(path: Path) -> None:
    with open_regular_file(path) as file:
        size_bytes = path.stat().st_size
        prefix = read_exactly(file, min(LENGTH_BYTES, size_bytes), where=path.name)
        length = parse_header_length(prefix, size_bytes, where=path.name)
        parse_header(read_exactly(file, length, where=path.name), size_bytes, where=path.name)


def _verify_json(path: Path) -> None:
    if "auto_map" in load_json_object(path):
        raise CheckpointRejected(f"{path.name}: auto_map names code to run; code from a model folder is never run")


def _files_below(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())
