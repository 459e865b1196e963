"""A model in a store of its own, signed with SHA-256, approved by two stewards and promoted, for what loads it.

By the product's functions, as `casemate model import|approve|promote` call them; each step says how long it took.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from appliance.config import Configuration
from appliance.config.defaults import default_configuration
from appliance.models.admission import admit_model, weights_check
from runtime.weights.file_check import FileCheck
from security.stewards.approving import approve_model, promote_model
from security.stewards.importing import Source, import_model
from security.stewards.store import ModelStore
from tests.support.stewardship import Stewardship

T = TypeVar("T")


@dataclass(frozen=True)
class Promoted:
    """A promoted model, and a configuration that serves it."""

    model_path: Path
    configuration: Configuration

    def check(self, *, with_load_digests: bool) -> FileCheck:
        """Verify the evidence as an engine does at its start; what it checks the bytes that it reads by."""
        admitted = admit_model(self.configuration, self.model_path)
        assert admitted is not None
        assert admitted.load_digests
        check = weights_check(admitted if with_load_digests else admitted.without_load_digests())
        assert check is not None
        return check


def promote(folder: Path, state: Path) -> Promoted:
    """Import a folder, have two approve it, promote it."""
    people, store = Stewardship(), ModelStore(state / "models")
    people.establish(state)
    size = sum(path.stat().st_size for path in folder.iterdir())
    source = Source(folder, "bench", "made here", "none")
    imported = timed("import", size, lambda: import_model(source, store, people.roles, people.signer("ines"), ()))
    for name in ("ada", "bob"):
        timed(
            f"approve as {name}",
            size,
            lambda name=name: approve_model(imported.item, people.roles, people.signer(name)),
        )
    promote_model(store, imported.item, people.roles)
    path = store.path_of("bench")
    return Promoted(path, default_configuration(path, "bench", state)[0])


def timed(what: str, size_bytes: int, work: Callable[[], T]) -> T:
    """What a step gives; its time is printed."""
    begin = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - begin
    print(f"{what}: {size_bytes / 1e9:.1f} GB in {seconds:.2f} s", flush=True)
    return result
