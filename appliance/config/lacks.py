"""Which protections of the finished appliance this configuration, on this build, goes without.

`production` needs every one of them or a waiver by name; `development` starts and says what it lacks, in `/ready`, in the
log and on the terminal. A protection leaves this list in the change that builds it, never before.
"""

import os
from collections.abc import Iterator

from msgspec import Struct

from appliance.config.errors import Problem
from appliance.config.schema import Configuration, model_paths_of
from security.sandbox.platform import probe_platform


class Lack(Struct, frozen=True):
    """A protection that is missing.

    Attributes:
        name: what a waiver names.
        consequence: what an attacker or an accident can do because of it, in a sentence.
        waived: the configuration says that this is accepted.
    """

    name: str
    consequence: str
    waived: bool


_NEEDS_SETTING = {
    "signed_models": "A model is not verified against signatures: whoever can write to its folder can change the answers.",
    "two_person_grants": "One person alone can make an administrator, an operator or an auditor.",
    "witness": "No witness (audit.witnesses) cosigns the log: whoever holds this host can replace it by another history.",
    "frozen_kernels": "Kernels are compiled on this machine or taken from loose files: what computes here is not pinned.",
    "own_certificates": "The server's certificate comes from an authority that this host made: its key lies on this host.",
}
_NEEDS_SYSTEM = {
    "confinement": "Processes run without a sandbox: a captured one can reach the files of the others.",
    "single_user": "All processes are one user: file permissions do not keep a captured one from the files of the others.",
}
PROTECTIONS = tuple(_NEEDS_SYSTEM | _NEEDS_SETTING)
"""Every name that a waiver may have."""


def what_is_lacking(configuration: Configuration) -> list[Lack]:
    """Every missing protection, the waived ones included, in a fixed order."""
    return [
        Lack(name, consequence, name in configuration.waivers) for name, consequence in _find_missing(configuration)
    ]


def find_unwaived(configuration: Configuration) -> list[Problem]:
    """What keeps this configuration from starting in production; waivers that name nothing, in either mode."""
    problems = [
        Problem("waivers", f'"{name}" is no protection that can be waived; there are: {", ".join(PROTECTIONS)}')
        for name in configuration.waivers
        if name not in PROTECTIONS
    ]
    if configuration.mode == "production":
        problems += [
            Problem("mode", f'production needs "{lack.name}", or the waiver of that name. {lack.consequence}')
            for lack in what_is_lacking(configuration)
            if not lack.waived
        ]
    return problems


def _find_missing(configuration: Configuration) -> Iterator[tuple[str, str]]:
    platform = probe_platform(configuration.confinement.first_uid)
    if not configuration.confinement.enabled:
        yield "confinement", f"It is switched off (confinement.enabled). {_NEEDS_SYSTEM['confinement']}"
    elif missing := platform.describe_missing():
        yield "confinement", f"It is incomplete on this system: {'; '.join(missing)}."
    if not configuration.confinement.enabled:
        yield "single_user", f"Confinement is switched off. {_NEEDS_SYSTEM['single_user']}"
    elif platform.no_own_users:
        yield "single_user", f"{_NEEDS_SYSTEM['single_user']} Why: {platform.no_own_users}."
    plain = [
        str(path)
        for engine in configuration.engines
        for path in model_paths_of(engine)
        if not _is_promoted(configuration, str(path))
    ]
    if plain:
        yield "signed_models", f"{_NEEDS_SETTING['signed_models']} Plain folders: {', '.join(plain)}."
    if not configuration.policy.two_person_grants:
        yield "two_person_grants", _NEEDS_SETTING["two_person_grants"]
    if not configuration.audit.witnesses:
        yield "witness", _NEEDS_SETTING["witness"]
    if thawed := [
        engine.model_path for engine in configuration.engines if engine.device == "cuda" and not engine.frozen
    ]:
        yield "frozen_kernels", f"{_NEEDS_SETTING['frozen_kernels']} Engines without frozen: {', '.join(thawed)}."
    if configuration.tls.certificate is None:
        yield "own_certificates", _NEEDS_SETTING["own_certificates"]


def _is_promoted(configuration: Configuration, model_path: str) -> bool:
    """Whether an engine names a model of the store: such a one is always verified, and does not start otherwise."""
    promoted = os.path.abspath(configuration.state_path / "models" / "promoted")
    return os.path.dirname(os.path.abspath(model_path)) == promoted
