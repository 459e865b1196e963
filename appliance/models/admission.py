"""What supervisor, engine and gateway ask before they use a model: is it promoted, by whom, and are these its bytes.

A model whose `model_path` is a name in the store (`STATE/models/promoted/NAME`) is verified, in either mode and without a switch to
turn that off. Any other folder is a plain one: production lacks `signed_models` then.

Weights are held to the load digests that importer and stewards agreed on, if there are any, and all else to the signature's
digests; with `fips = true` everything is.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from appliance.config import Configuration
from appliance.errors import StartRefused
from appliance.models.places import open_store, open_trust, utc_now
from runtime.settings import EngineSettings
from runtime.weights.file_check import FileCheck
from security.errors import ModelRejected
from security.model_signing.algorithms import APPROVED_ALGORITHMS, TITLES, digest_of, new_hasher
from security.stewards.admission import Admitted, verify_item
from security.stewards.allowlist import is_weights
from security.stewards.load_digests import LOAD_ALGORITHM
from security.stewards.store import Item

_TEXT_FILES = ("chat_template.jinja", "tokenizer.json", "tokenizer_config.json")
_ENGINE_FILES = ("config.json", "generation_config.json")


def find_item(configuration: Configuration, model_path: Path) -> tuple[str, Item] | None:
    """The store's item behind an engine's folder; None for a plain folder.

    Raises: StartRefused for a name in the store that stands for nothing.
    """
    try:
        return open_store(configuration.state_path).item_at(model_path)
    except ModelRejected as error:
        raise StartRefused(f"engines.model_path: {error}") from error


def admit_model(configuration: Configuration, model_path: Path) -> Admitted | None:
    """Verify a promoted model's evidence; None for a plain folder.

    Raises: StartRefused, saying what is wrong; SecurityMisconfigured for trust that cannot be used.
    """
    found = find_item(configuration, model_path)
    if found is None:
        return None
    name, item = found
    roles = open_trust(configuration.state_path).load_roles(at=utc_now())
    try:
        admitted = verify_item(item, roles)
    except ModelRejected as error:
        raise StartRefused(f"model {name}: {error}") from error
    if admitted.name != name:
        raise StartRefused(f"model {name}: was approved under the name {admitted.name}")
    if configuration.fips and admitted.signed.algorithm not in APPROVED_ALGORITHMS:
        raise StartRefused(
            f"model {name}: is signed with {admitted.signed.algorithm} digests, which fips = true does not take: import it again "
            f"with --digest {' or '.join(APPROVED_ALGORITHMS)}"
        )
    return admitted.without_load_digests() if configuration.fips else admitted


def explain_weights(configuration: Configuration, admitted: Admitted) -> str:
    """By what weights are verified when they are loaded, and why, for people."""
    by = TITLES[admitted.weights_algorithm]
    if admitted.load_digests:
        return f"{by}, as importer and stewards state beside the signature"
    if admitted.signed.algorithm == LOAD_ALGORITHM:
        return f"{by}, as the signature has it"
    why = (
        "fips = true takes no other"
        if configuration.fips
        else "import or approvals state no load digests; loading takes longer than with them"
    )
    return f"{by}: {why}"


def weights_check(admitted: Admitted | None) -> FileCheck | None:
    """Who checks what the engine has in memory: configuration and all weights at the top of the folder; None for a plain one.

    What it raises: StartRefused.
    """
    if admitted is None:
        return None

    def verify(digests: Mapping[str, str]) -> None:
        _verify(admitted, digests, lambda name: name in _ENGINE_FILES or (is_weights(name) and "/" not in name))

    return _check_by(admitted, verify)


def head_check(configuration: Configuration, model_path: Path, head_path: Path) -> FileCheck | None:
    """Who checks what the engine has in memory of a draft head; None for a plain folder.

    A head that lies in its target's folder is covered by that one's evidence, any other by its own.
    Raises: StartRefused.
    """
    model, head = Path(os.path.abspath(model_path)), Path(os.path.abspath(head_path))
    is_inside = head.is_relative_to(model)
    admitted = admit_model(configuration, model_path if is_inside else head_path)
    if admitted is None:
        return None
    prefix = f"{head.relative_to(model).as_posix()}/" if is_inside else ""

    def verify(digests: Mapping[str, str]) -> None:
        _verify(admitted, {f"{prefix}{name}": digest for name, digest in digests.items()}, concerns)

    def concerns(name: str) -> bool:
        own = name.removeprefix(prefix)
        return name.startswith(prefix) and (own == "config.json" or (is_weights(own) and "/" not in own))

    return _check_by(admitted, verify)


@dataclass(frozen=True, slots=True)
class LoadChecks:
    """What an engine's ranks ask about what they load."""

    admitted: Admitted | None
    weights: FileCheck | None
    head: FileCheck | None
    """Of the draft head, if there is one."""


def checks_of(configuration: Configuration, settings: EngineSettings) -> LoadChecks:
    """Admit the model of an engine. Raises: StartRefused."""
    model_path, head_path = Path(settings.model_path), settings.speculative_draft_model_path
    admitted = admit_model(configuration, model_path)
    head = head_check(configuration, model_path, Path(head_path)) if head_path else None
    return LoadChecks(admitted, weights_check(admitted), head)


def verify_read(admitted: Admitted | None, name: str, content: bytes) -> None:
    """Check the bytes of one file as a reader has them in memory; of a plain folder nothing is known.

    Raises: StartRefused.
    """
    if admitted is not None:
        _verify(admitted, {name: digest_of(admitted.algorithm_of(name), content)}, lambda _name: False)


def verify_folder(configuration: Configuration, folder: Path, contents: Mapping[str, bytes], is_all: bool) -> None:
    """Check what the gateway has in memory of a model: tokenizer, template and configuration. A plain folder passes.

    Args:
        contents: files as they were read, by name.
        is_all: these are all that were read, so that one which is missing is noticed.

    Raises: StartRefused.
    """
    admitted = admit_model(configuration, folder)
    if admitted is not None:
        digests = {name: digest_of(admitted.algorithm_of(name), content) for name, content in contents.items()}
        _verify(admitted, digests, lambda name: is_all and name in (*_TEXT_FILES, *_ENGINE_FILES))


def _check_by(admitted: Admitted, verify: Callable[[Mapping[str, str]], None]) -> FileCheck:
    algorithm, small = admitted.weights_algorithm, admitted.signed.algorithm
    return FileCheck(
        verify, lambda count: new_hasher(algorithm, num_threads=count), algorithm, partial(digest_of, small)
    )


def _verify(admitted: Admitted, digests: Mapping[str, str], concerns: Callable[[str], bool]) -> None:
    try:
        admitted.verify_loaded(digests, concerns)
    except ModelRejected as error:
        raise StartRefused(f"model {admitted.name}: {error}") from error
