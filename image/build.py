"""Builds the CPU image twice, without a network, and fails unless both are the same to the bit.

Each build starts from nothing: base file system from the packages, our wheel from the source, and buildah, which needs no daemon,
in a network namespace with nothing in it. Compared are the digests of the OCI archives, and so of every layer and of the
configuration.

Usage: python -m image.build [--once] OUTPUT
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from image.base import build_base
from image.fetch import CACHE, DEBS, ROOT
from image.lock import hash_file

EPOCH = "0"
_OWN = CACHE / "own"


def build_image(work: Path, output: Path) -> str:
    """One build; gives the archive's SHA-256."""
    build_own_wheel()
    base_tar = work / "base.tar"
    build_base(DEBS, base_tar)
    root, run_root = work / "storage", work / "run"
    buildah = ["buildah", "--root", str(root), "--runroot", str(run_root), "--storage-driver", "vfs"]
    base = _import_base(buildah, base_tar)
    built = ["build", "--isolation", "chroot", "--no-cache", "--timestamp", EPOCH, "--pull=never", "--layers=false"]
    built += ["--build-arg", f"BASE={base}", "--target", "casemate-cpu", "--format", "oci"]
    layout = work / "layout"
    _run([*buildah, *built, "--tag", f"oci:{layout}:casemate:cpu", "--file", "Dockerfile", "."])
    pack_layout(layout, output)
    return hash_file(output)


def pack_layout(layout: Path, output: Path) -> None:
    """An OCI layout as one archive, the same every time: buildah's own archives hold the time of their making."""
    with tarfile.open(output, "w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted(layout.rglob("*")):
            if path.is_file():
                info = tarfile.TarInfo(path.relative_to(layout).as_posix())
                info.size, info.mode = path.stat().st_size, 0o644
                with path.open("rb") as file:
                    tar.addfile(info, file)


def _import_base(buildah: list[str], tar: Path) -> str:
    """The base file system as a local image, by its digest."""
    container = _run([*buildah, "from", "scratch"]).strip()
    _run([*buildah, "add", container, str(tar), "/"])
    _run([*buildah, "commit", "--timestamp", EPOCH, "--format", "oci", container, "localhost/casemate-base:cpu"])
    digest = _run([*buildah, "images", "--format", "{{.Digest}}", "localhost/casemate-base:cpu"]).strip()
    return f"localhost/casemate-base@{digest}"


def build_own_wheel() -> None:
    """Our wheel from the source; its members have the time of SOURCE_DATE_EPOCH."""
    shutil.rmtree(_OWN, ignore_errors=True)
    _OWN.mkdir(parents=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(_OWN),
        str(ROOT),
    ]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "315532800"}  # 1980, the first time that a wheel can have.
    subprocess.run(command, check=True, env=environment)


def _run(command: list[str]) -> str:
    """Run in an empty network namespace; what goes wrong is shown."""
    wrapped = ["unshare", "--net", *command] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net", *command]
    done = subprocess.run(wrapped, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def main() -> int:
    """Build, build again, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--once", action="store_true", help="build once and compare with nothing")
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    digests, wheels = [], []
    for number in range(1 if arguments.once else 2):
        with tempfile.TemporaryDirectory(prefix="casemate-image-", dir=CACHE) as work:
            archive = Path(work) / "image.tar"
            digests.append(build_image(Path(work), archive))
            sys.stderr.write(f"build {number + 1}: sha256:{digests[-1]}\n")
            wheels += [hash_file(wheel) for wheel in _OWN.iterdir()]
            shutil.move(archive, arguments.output)
    if len(set(wheels)) != 1:
        sys.stderr.write("the source changed between the builds, or our wheel is not the same twice\n")
    if len(set(digests)) != 1:
        sys.stderr.write("the builds differ\n")
        return 1
    print(f"{arguments.output}: {arguments.output.stat().st_size / 1e6:.0f} MB, sha256:{digests[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
