"""A part of a release: a wheel, a Debian package, or our own."""

import importlib.metadata
import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

_DEB = re.compile(r"^([0-9a-f]{64})  ([^_\s]+)_([^_\s]+)_[a-z0-9]+\.deb  ([^=\s]+)=(\S+)$", re.MULTILINE)

Ecosystem = Literal["pypi", "deb"]


@dataclass(frozen=True, slots=True, order=True)
class Component:
    """Named as advisories name it."""

    ecosystem: Ecosystem
    name: str
    version: str
    sha256: str = ""
    """Of the file that it came as; empty where only the installation is known."""
    source: str = ""
    """The source package that a Debian package was built from: Debian's advisories name that one, and its version."""
    source_version: str = ""

    @property
    def purl(self) -> str:
        """Its package URL."""
        if self.ecosystem == "deb":
            upstream = f"&upstream={quote(f'{self.source}@{self.source_version}', safe='')}" if self.source else ""
            return f"pkg:deb/debian/{quote(self.name)}@{quote(self.version, safe='')}?distro=bookworm{upstream}"
        return f"pkg:pypi/{quote(normalize_name(self.name))}@{quote(self.version, safe='')}"


def normalize_name(name: str) -> str:
    """The one spelling of a Python distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parse_wheels_lock(text: str) -> list[Component]:
    """Components of a list of wheels, `NAME==VERSION --hash=sha256:…` a line."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==(\S+) --hash=sha256:([0-9a-f]{64})$", text, re.MULTILINE)
    return [Component("pypi", normalize_name(name), version, digest) for name, version, digest in found]


def parse_debs_lock(text: str) -> list[Component]:
    """Components of a list of Debian packages, `SHA256  NAME_VERSION_ARCH.deb  SOURCE=VERSION` a line."""
    return [
        Component("deb", name, version.replace("%3a", ":"), digest, source, source_version)
        for digest, name, version, source, source_version in _DEB.findall(text)
    ]


def find_installed() -> list[Component]:
    """Every Python distribution of this environment."""
    found = {
        Component("pypi", normalize_name(one.metadata["Name"]), one.version)
        for one in importlib.metadata.distributions()
    }
    return sorted(found)
