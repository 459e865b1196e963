"""The running statement as a whole: a JSON object in one form, its digest, and where it is kept.

    state/run/statement.json     the statement; `sha256sum` of it is what answers name

It says what was measured, by whom, and what was not: a model from a plain folder is `unverified`, and without a TPM, whose key it
names, nobody but this host vouches for any of it.
"""

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from appliance.config import Configuration, served_name_of
from appliance.config.schema import model_paths_of
from appliance.errors import StartRefused
from appliance.models.admission import admit_model
from appliance.statement.attesting import describe_tpm
from appliance.statement.files import write_file
from appliance.statement.measuring import (
    NONE,
    describe_gpus,
    measure_dependencies,
    measure_file,
    measure_interpreter,
    measure_kernels,
    measure_software,
)
from security.stewards.load_digests import describe_list

FORMAT = "casemate.statement/1"
UNVERIFIED = "unverified"


@dataclass(frozen=True, slots=True)
class RunningStatement:
    """What runs."""

    facts: Mapping[str, str]

    def encode(self) -> bytes:
        """The statement's one form."""
        return json.dumps({"type": FORMAT, **self.facts}, sort_keys=True, separators=(",", ":")).encode() + b"\n"

    @property
    def digest(self) -> str:
        """`sha256:` and hexadecimal: what answers and records name."""
        return f"sha256:{hashlib.sha256(self.encode()).hexdigest()}"


def measure_statement(configuration: Configuration, raw: bytes) -> RunningStatement:
    """Measure everything, before any process is started.

    Args:
        raw: the configuration's bytes, as every process gets them.
    Raises: StartRefused for a model that may not be loaded, or a file that cannot be read.
    """
    try:
        gpu, driver = describe_gpus()
        models, load_digests = _describe_models(configuration)
        facts = {
            "software": f"sha256:{measure_software()}",
            "dependencies": f"records:{measure_dependencies()}",
            "interpreter": f"sha256:{measure_interpreter()}",
            "kernels": " ".join(_describe_kernels(configuration)) or NONE,
            "cache_scales": " ".join(_describe_cache_scales(configuration)) or NONE,
            "configuration": f"sha256:{hashlib.sha256(raw).hexdigest()}",
            "models": " ".join(models),
            "load_digests": " ".join(load_digests),
            "gpu": gpu,
            "driver": driver,
            "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
            "tpm": describe_tpm(configuration.tpm),
        }
    except OSError as error:
        raise StartRefused(f"running statement: {error.filename}: {error.strerror}") from error
    return RunningStatement(facts)


def keep_statement(statement: RunningStatement, state: Path) -> Path:
    """Put the statement, durably, where people can read it. Raises: StartRefused."""
    path = state / "run" / "statement.json"
    write_file(path, statement.encode())
    return path


def _describe_models(configuration: Configuration) -> tuple[list[str], list[str]]:
    """Of each engine's models the manifest's digest, and that of the load digests by which their weights are verified."""
    models, load_digests = [], []
    for engine in configuration.engines:
        admitted = [admit_model(configuration, path) for path in model_paths_of(engine)]
        roots = [UNVERIFIED if each is None else f"sha256:{each.root}" for each in admitted]
        lists = [NONE if each is None else describe_list(each.load_digests) for each in admitted]
        models.append(f"{served_name_of(engine)}={'+'.join(roots)}")
        load_digests.append(f"{served_name_of(engine)}={'+'.join(lists)}")
    return models, load_digests


def _describe_kernels(configuration: Configuration) -> list[str]:
    """Compiled kernels of each engine that names a folder of them, whatever they are used for."""
    found = []
    for engine in configuration.engines:
        if engine.kernels_path:
            digest = measure_kernels(Path(engine.kernels_path))
            found.append(f"{served_name_of(engine)}={digest if digest == NONE else f'sha256:{digest}'}")
    return found


def _describe_cache_scales(configuration: Configuration) -> list[str]:
    """The file of scales for a KV cache in e4m3 of each engine that names one."""
    return [
        f"{served_name_of(engine)}=sha256:{measure_file(Path(engine.quantization_param_path))}"
        for engine in configuration.engines
        if engine.quantization_param_path
    ]
