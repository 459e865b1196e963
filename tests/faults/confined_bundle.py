"""Runs inside a confined engine: loads a kernel bundle, opens a library of it from memory and calls it. Prints JSON."""

import argparse
import ctypes
import json
import os
from pathlib import Path

from runtime.kernels.bundle import load_bundle
from runtime.kernels.libraries import BundleLibraries
from security.sandbox.launch import Confined
from security.sandbox.platform import assume_platform
from security.sandbox.seccomp import confine_self


class Library:
    """A shared object by ctypes, with what the C library calls `cos` as its function."""

    def __init__(self, path: Path) -> None:
        self.plan = ctypes.CDLL(str(path)).cos
        self.plan.restype, self.plan.argtypes = ctypes.c_double, [ctypes.c_double]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--control-fd", type=int)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--confinement", type=Confined.decode)
    arguments = parser.parse_args()
    confined: Confined = arguments.confinement
    assume_platform(confined.platform)
    confine_self(confined.role, confined.network, uses_gpu=True)
    bundle = load_bundle(arguments.bundle)
    outcome: dict[str, object] = {"digest": bundle.manifest.digest, "failed": list(confined.failed)}
    libraries = BundleLibraries(bundle, Library)
    outcome["called"] = [libraries.function(entry.name, "plan")(0.0) for entry in bundle.manifest.libraries]
    try:
        os.listdir(arguments.bundle.parent / "other")
    except (PermissionError, FileNotFoundError):  # In a private root it does not exist.
        outcome["other"] = "refused"
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
