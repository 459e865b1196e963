"""`casemate kernels`: compile the kernels of a configuration ahead of time, verify a bundle of them, say what is in one.

Everything of the runtime is imported by the command that needs it: torch takes seconds.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from appliance.cli.commands import Commands, add_command
from appliance.cli.main import EXIT_OK
from appliance.cli.progress import Progress
from appliance.config.disk import load_configuration
from appliance.errors import CommandFailed

ARCHITECTURES = ("sm_90a",)
HOPPER_MULTIPROCESSORS = 132
DEFAULT_BUILD_FOLDER = "/var/tmp/casemate-kernels"  # noqa: S108 - refused if it is not the user's own and closed to others
DEFAULT_CUDA_HOME = "/usr/local/cuda"


def add_kernels_commands(subparsers: Commands) -> None:
    """Add `kernels` with its commands."""
    kernels = subparsers.add_parser(
        "kernels",
        help="compile GPU kernels ahead of time",
        description="Compile the kernels of a configuration ahead of time, verify a bundle of them, say what is in one. `build`"
        " needs compilers and no GPU; `verify` and `list` need the bundle alone.",
    )
    commands = kernels.add_subparsers(metavar="COMMAND", required=True)
    build = commands.add_parser(
        "build",
        help="compile all kernels that a configuration needs",
        description="Compile all kernels that the GPU engines of a configuration need into a new bundle. Needs no GPU.",
    )
    build.add_argument("--config", required=True, type=Path, metavar="FILE", help="the configuration")
    build.add_argument("--out", required=True, type=Path, metavar="DIR", help="the bundle: a new or an empty folder")
    build.add_argument("--arch", choices=ARCHITECTURES, default=ARCHITECTURES[0], help="default: %(default)s")
    build.add_argument(
        "--reuse",
        type=Path,
        metavar="DIR",
        help="take FlashInfer's libraries from a bundle, or from a folder of NAME.so with versions.json, and compile none",
    )
    build.add_argument(
        "--multiprocessors",
        type=int,
        default=HOPPER_MULTIPROCESSORS,
        metavar="N",
        help="of the GPU; an H100 PCIe has 114 (default: %(default)s)",
    )
    build.add_argument("--cuda-home", type=Path, default=DEFAULT_CUDA_HOME, metavar="DIR", help="default: %(default)s")
    build.add_argument(
        "--build-folder",
        type=Path,
        default=DEFAULT_BUILD_FOLDER,
        metavar="DIR",
        help="where FlashInfer is compiled; the same for builds that are to be the same (default: %(default)s)",
    )
    build.add_argument("--jobs", type=int, default=2, metavar="N", help="files compiled at once (default: %(default)s)")
    build.set_defaults(handler=_build)
    verify = _add_command(commands, "verify", "verify that a bundle holds exactly what its manifest names", _verify)
    verify.add_argument(
        "--config", type=Path, metavar="FILE", help="verify as well that it holds all that this needs, for this release"
    )
    _add_command(commands, "list", "say what a bundle holds", _list)


def _add_command(
    commands: Commands,
    name: str,
    summary: str,
    handler: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    command = add_command(commands, name, summary, handler)
    command.add_argument("folder", metavar="DIR", type=Path, help="the bundle")
    command.add_argument("--json", action="store_true", help="print JSON")
    return command


def _build(arguments: argparse.Namespace) -> int:
    from runtime.kernels.building import build_bundle
    from runtime.kernels.bundle import verify_is_free, write_bundle
    from runtime.kernels.compiling import TritonCompiler

    verify_is_free(arguments.out)
    with Progress("building kernels") as progress:
        progress.say("what the configuration needs")
        needs = _find_needs(arguments.config, arguments.multiprocessors)
        compiler = TritonCompiler(arguments.arch)
        libraries = _get_libraries(arguments, needs, progress.say)
        manifest, contents = build_bundle(arguments.arch, needs.variants, libraries, compiler, progress.say)
        write_bundle(arguments.out, manifest, contents)
    _print_summary(manifest)
    return EXIT_OK


def _get_libraries(arguments: argparse.Namespace, needs: Any, say: Callable[[str], None]) -> Any:
    from runtime.kernels.building import CompiledLibraries, compile_libraries, reuse_libraries
    from runtime.kernels.flashinfer_building import FlashInferCompiler, Toolchain

    if not needs.libraries:
        return CompiledLibraries({})
    if arguments.reuse is not None:
        return reuse_libraries(arguments.reuse, needs.libraries)
    toolchain = Toolchain(arguments.cuda_home, arguments.build_folder, arguments.jobs)
    return compile_libraries(needs.libraries, FlashInferCompiler(arguments.arch, toolchain), say)


def _find_needs(path: Path, num_multiprocessors: int) -> Any:
    from runtime.runner.kernel_needs import find_all_needs

    configuration, _ = load_configuration(path)
    needs = find_all_needs(configuration.engines, num_multiprocessors=num_multiprocessors)
    if not needs.variants:
        raise CommandFailed(f"{path} names no engine on a GPU that runs compiled kernels")
    return needs


def _verify(arguments: argparse.Namespace) -> int:
    from runtime.kernels.bundle import load_bundle

    bundle = load_bundle(arguments.folder)
    if arguments.config is not None:
        bundle.verify_sources()
        needs = _find_needs(arguments.config, HOPPER_MULTIPROCESSORS)
        bundle.verify_holds(needs.variants, map(str, needs.libraries))
    if arguments.json:
        print(json.dumps({"sha256": bundle.manifest.digest, "files": len(bundle.contents)}))
        return EXIT_OK
    _print_summary(bundle.manifest)
    return EXIT_OK


def _list(arguments: argparse.Namespace) -> int:
    from runtime.kernels.bundle import load_bundle

    manifest = load_bundle(arguments.folder).manifest
    if arguments.json:
        print(manifest.encode().decode().strip())
        return EXIT_OK
    _print_summary(manifest)
    for library in manifest.libraries:
        print(f"library    {library.name}  {library.size_bytes:,} bytes")
    for kernel in manifest.kernels:
        print(f"kernel     {kernel.variant}  {kernel.size_bytes:,} bytes")
    return EXIT_OK


def _print_summary(manifest: Any) -> None:
    versions = manifest.versions
    size_bytes = sum({entry.sha256: entry.size_bytes for entry in manifest.entries}.values())
    made_by = [f"Triton {versions.triton}", f"ptxas {versions.ptxas}"] if versions.triton else []
    made_by += [f"FlashInfer {versions.flashinfer}", f"nvcc {versions.nvcc}"] if versions.flashinfer else []
    print(f"bundle     sha256:{manifest.digest}")
    print(f"holds      {len(manifest.kernels)} kernels, {len(manifest.libraries)} libraries, {size_bytes:,} bytes")
    print(f"for        {manifest.arch}")
    print(f"made by    {'; '.join(made_by)}")
