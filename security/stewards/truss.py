"""A Truss `config.yaml` as an import format: what of it is a model, and what of it is refused by name.

A Truss packages a model together with a way to build and run it. Only the model is taken: the files in its data folder, its
name and its description. Whatever asks for more than to be computed is refused, since this appliance would not do it, and an
import that leaves it out silently would look as if it did.

YAML is read by a parser that makes no objects, follows no aliases (ten lines of them expand to gigabytes) and takes no
key twice. Source: the reference of Truss's configuration, as of Truss 0.9 and later.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from security.errors import ModelFolderRejected
from security.model_signing.names import problem_of_name, show_name

CONFIG_NAME = "config.yaml"
MAX_CONFIG_BYTES = 1 << 18
_MAX_DEPTH = 16

_PLAIN = ("model_name", "description", "data_dir", "model_metadata", "resources", "spec_version", "model_framework")
_WITHOUT_MEANING = (
    "model_type",
    "input_type",
    "python_version",
    "examples_filename",
    "apply_library_patches",
    "live_reload",
)
_UNDERSTOOD = frozenset((*_PLAIN, *_WITHOUT_MEANING))
"""Taken, or without meaning for files that are loaded by another engine."""

_EGRESS = "it would download while it is built or run; put the files into the data folder"
_BUILD = "it would run or install something while it is built; nothing is built on this appliance"
_SHELL = "it would open the running model to people; nobody gets into an engine's process"
_CODE = "it would run code from the model folder; code from a model folder is never run"
_VARIABLES = "it would hand secrets or variables to the model; an engine's process gets none"
_SERVER = "it would run another server; models are served by this appliance's own engine"
_REFUSED: Mapping[str, str] = {
    **dict.fromkeys(("external_data", "model_cache", "hf_cache", "weights", "cache"), _EGRESS),
    **dict.fromkeys(("build_commands", "requirements", "requirements_file", "system_packages", "build"), _BUILD),
    **dict.fromkeys(("base_image", "docker_auth", "use_local_src", "use_local_chains_src"), _BUILD),
    **dict.fromkeys(("ssh", "remote_ssh", "remote_shell", "interactive_session", "training", "debug"), _SHELL),
    **dict.fromkeys(("model_module_dir", "model_class_filename", "model_class_name"), _CODE),
    **dict.fromkeys(("external_package_dirs", "bundled_packages_dir"), _CODE),
    **dict.fromkeys(("secrets", "environment_variables"), _VARIABLES),
    **dict.fromkeys(("docker_server", "trt_llm", "vllm", "runtime", "model_server"), _SERVER),
}


@dataclass(frozen=True, slots=True)
class TrussPackage:
    """What is taken of a Truss."""

    model_name: str | None
    description: str
    data_dir: str
    """Folder of the model's files, relative to the Truss."""
    accelerator: str
    """What the Truss was made for, for people; it decides nothing."""


def parse_truss_config(data: bytes) -> TrussPackage:
    """Parse an untrusted `config.yaml`; at most MAX_CONFIG_BYTES.

    Raises: ModelFolderRejected, a line for each key that is refused.
    """
    document = _parse_yaml(data)
    problems = [
        f"{CONFIG_NAME}: {key}: {_REFUSED.get(key, 'not known here, and nothing is passed over silently')}"
        for key, value in document.items()
        if key not in _UNDERSTOOD and not _is_empty(value)
    ]
    problems += _find_nested_problems(document)
    if problems:
        raise ModelFolderRejected("\n".join(problems))
    data_dir = _text(document, "data_dir") or "data"
    if problem := problem_of_name(data_dir):
        raise ModelFolderRejected(f"{CONFIG_NAME}: data_dir: {show_name(data_dir)}: {problem}")
    resources = document.get("resources") or {}
    return TrussPackage(
        model_name=_text(document, "model_name"),
        description=_text(document, "description") or "",
        data_dir=data_dir,
        accelerator=str(resources.get("accelerator") or ""),
    )


def _find_nested_problems(document: dict[str, Any]) -> list[str]:
    problems = []
    for key in ("model_metadata", "resources"):
        if not isinstance(document.get(key) or {}, dict):
            problems.append(f"{CONFIG_NAME}: {key}: expected a mapping")
    metadata = document.get("model_metadata") or {}
    if isinstance(metadata, dict):
        problems += [
            f"{CONFIG_NAME}: model_metadata.{name}: {_REFUSED[name]}" for name in sorted(set(metadata) & set(_REFUSED))
        ]
    if document.get("live_reload"):
        problems.append(f"{CONFIG_NAME}: live_reload: {_SHELL}")
    return problems


def _text(document: dict[str, Any], key: str) -> str | None:
    value = document.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > 4096:
        raise ModelFolderRejected(f"{CONFIG_NAME}: {key}: expected text")
    return value


def _is_empty(value: Any) -> bool:
    """`truss init` writes many keys with nothing in them."""
    return value is None or value in ([], {}, "", False)


def _parse_yaml(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_CONFIG_BYTES:
        raise ModelFolderRejected(f"{CONFIG_NAME}: longer than {MAX_CONFIG_BYTES} bytes")
    try:
        document = yaml.load(data.decode("utf-8"), _StrictLoader)  # noqa: S506 - a SafeLoader that takes even less
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = getattr(error, "problem", None) or type(error).__name__
        raise ModelFolderRejected(f"{CONFIG_NAME}: not plain YAML: {problem}") from None
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise ModelFolderRejected(f"{CONFIG_NAME}: expected a mapping with names as keys")
    return document


class _StrictLoader(yaml.SafeLoader):  # type: ignore[misc]
    """No aliases, no key twice, bounded depth."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.constructor.ConstructorError(problem="aliases are not taken")
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise yaml.constructor.ConstructorError(problem=f"nested deeper than {_MAX_DEPTH}")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        if len(names) != len({repr(name) for name in names}):
            raise yaml.constructor.ConstructorError(problem="a key occurs twice")
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)
        return mapping
