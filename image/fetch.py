"""Collects what the image is made of into `.cache/image`: wheels and Debian packages, by the committed lists of their digests.

The only step of the build that needs an index and a mirror. A file that is there with the right digest is kept; one with another
digest is an error, whoever sent it.

Usage: python -m image.fetch
"""

import re
import subprocess
import sys
from pathlib import Path

from image.lock import DEBS_LOCK, PIP_LOCK, WHEELS_LOCK, hash_file

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".cache" / "image"
WHEELS, DEBS = CACHE / "wheels", CACHE / "debs"


def fetch_wheels() -> None:
    """Have pip download what is missing; pip itself checks each digest."""
    WHEELS.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--only-binary", ":all:", "--dest", str(WHEELS), "-r", str(WHEELS_LOCK), "-r", str(PIP_LOCK)]
    subprocess.run(command, check=True)
    digests = set(re.findall(r"sha256:([0-9a-f]{64})", WHEELS_LOCK.read_text() + PIP_LOCK.read_text()))
    for wheel in WHEELS.iterdir():
        if hash_file(wheel) not in digests:
            wheel.unlink()  # Of an earlier list.


def fetch_debs() -> None:
    """Download what is missing, and check every digest; apt's own signatures are checked by apt besides."""
    DEBS.mkdir(parents=True, exist_ok=True)
    lines = [line.split("  ") for line in DEBS_LOCK.read_text().splitlines() if line[:1].isalnum()]
    listed = {name: digest for digest, name, _source in lines}
    for name, digest in listed.items():
        path = DEBS / name
        if not path.exists():
            package, version, _ = name.removesuffix(".deb").rsplit("_", 2)
            wanted = f"{package}={version.replace('%3a', ':')}"
            if subprocess.run(["apt-get", "download", "-q", wanted], cwd=DEBS, stdout=subprocess.DEVNULL).returncode:
                raise SystemExit(
                    f"{wanted}: apt-get does not find it: its lists are old (apt-get update), or the mirror has "
                    "a later one (make image-lock)"
                )
        if not path.exists() or hash_file(path) != digest:
            raise SystemExit(f"{name}: has another digest than {DEBS_LOCK.name} says, or is not there")
    for path in DEBS.iterdir():
        if path.name not in listed:
            path.unlink()


if __name__ == "__main__":
    fetch_wheels()
    fetch_debs()
    print(f"{len(list(WHEELS.iterdir()))} wheels and {len(list(DEBS.iterdir()))} packages in {CACHE.relative_to(ROOT)}")
