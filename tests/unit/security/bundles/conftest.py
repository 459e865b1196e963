"""Fixtures: a vendor with a root, releases as folders, bundles, and an empty host that believes the vendor."""

import datetime
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from security.bundles.building import Built, Lifetimes, build_bundle
from security.bundles.installing import install_bundle
from security.bundles.release import Release, parse_version
from security.bundles.slots import Host, SlotContent
from security.bundles.trust import HostTrust
from security.bundles.verification import open_bundle
from tests.support.stewardship import Holder, make_root

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
FILES = {
    "software/run.py": b"print('one')\n",
    "software/lib/code.py": b"x = 1\n" * 1000,
    "kernels/decode.cubin": bytes(range(256)) * 40,
    "docs/empty": b"",
}


@dataclass
class Vendor:
    """Who signs releases."""

    holder: Holder = field(default_factory=lambda: Holder("vendor"))
    roots: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.roots = self.roots or [make_root(self.holder)]

    def build(
        self, output: Path, parts: Path, version: str = "1.0.0", *, previous: Path | None = None, is_delta: bool = False,
        now: datetime.datetime = NOW, lifetimes: Lifetimes = Lifetimes(), owner: str = "vendor",
    ) -> Built:  # fmt: skip
        release = Release("vendor" if owner == "vendor" else "customer", parse_version(version), NOW)
        components = {path.name: path for path in sorted(parts.iterdir())}
        return build_bundle(
            output, self.roots, release, components, [self.holder.signer],
            now=now, lifetimes=lifetimes, previous=previous, is_delta=is_delta,
        )  # fmt: skip


@dataclass
class Site:
    """A host, and what it believes."""

    host: Host
    trust: HostTrust

    def install(
        self,
        bundle: Path,
        now: datetime.datetime = NOW,
        announce: Callable[[SlotContent], None] = lambda _content: None,
    ) -> SlotContent:
        with open_bundle(bundle, self.trust, "vendor", now=now, remember=True) as opened:
            self.trust.note_time(now)
            return install_bundle(self.host, opened, announce=announce)

    def verify(self, bundle: Path, now: datetime.datetime = NOW) -> str:
        with open_bundle(bundle, self.trust, "vendor", now=now, remember=False) as opened:
            return opened.digest


def write_parts(folder: Path, **changes: bytes) -> Path:
    """A release's parts; changes by the path with `__` for `/` and `_DOT_` for `.`."""
    files = FILES | {name.replace("__", "/").replace("_DOT_", "."): content for name, content in changes.items()}
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "software/run.py").chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def vendor() -> Vendor:
    """One vendor for all tests."""
    return Vendor()


@pytest.fixture
def site(tmp_path: Path, vendor: Vendor) -> Site:
    """An empty host that believes the vendor."""
    trust = HostTrust(tmp_path / "state" / "trust")
    trust.pin_root("vendor", vendor.roots[0], hashlib.sha256(vendor.roots[0]).hexdigest())
    return Site(Host(tmp_path / "host"), trust)


@pytest.fixture
def bundle(tmp_path: Path, vendor: Vendor) -> Path:
    """Release 1.0.0 in a folder."""
    vendor.build(tmp_path / "bundle", write_parts(tmp_path / "parts"))
    return tmp_path / "bundle"


@pytest.fixture
def next_bundle(tmp_path: Path, vendor: Vendor, bundle: Path) -> Callable[..., Path]:
    """Release 1.1.0 after it, with another `run.py`; a delta on request."""

    def build(version: str = "1.1.0", *, is_delta: bool = False, name: str = "next") -> Path:
        parts = write_parts(tmp_path / f"parts-{name}", software__run_DOT_py=f"print('{version}')\n".encode())
        vendor.build(tmp_path / name, parts, version, previous=bundle, is_delta=is_delta)
        return tmp_path / name

    return build
