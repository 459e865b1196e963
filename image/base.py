"""The file system below everything, as one tar: Debian packages unpacked, not installed, into a form that is the same every time.

No package's scripts run, so nothing has to be there for them: no shell, no package manager. Every member has time 0 and owner
root (but the state folder, which is the appliance's), members are in the order of their names, and `/bin`, `/lib`, `/lib64` and
`/sbin` are links into `/usr`, as Debian has them. Manuals and translations are left out, and Debian's `sitecustomize.py`, which is
for desktops; copyright files stay.
"""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

_LEFT_OUT = (
    "usr/share/man/",
    "usr/share/info/",
    "usr/share/locale/",
    "usr/share/lintian/",
    "usr/share/bug/",
    "usr/share/doc-base/",
)
_MERGED = ("bin", "sbin", "lib", "lib64")
_AR_MAGIC, _AR_HEADER = b"!<arch>\n", 60
_OWNER = 65532
_USERS = "root:x:0:0:root:/:/nonexistent\ncasemate:x:65532:65532:Casemate:/nonexistent:/nonexistent\n"
_GROUPS = "root:x:0:\ncasemate:x:65532:\n"
_FOLDERS = {"tmp": 0o1777, "var/lib/casemate": 0o755, "etc/casemate": 0o755, "proc": 0o555, "sys": 0o555, "dev": 0o755}
_STATE = "var/lib/casemate/state"
"""Its owner becomes that of an empty volume that is mounted over it. Where nothing lies the volume is root's."""


def build_base(debs: Path, output: Path) -> None:
    """Write the tar."""
    members: dict[str, tuple[tarfile.TarInfo, bytes]] = {}
    for deb in sorted(debs.glob("*.deb")):
        for info, content in _unpack(deb):
            members[info.name] = (info, content)
    for name in _MERGED:
        members[name] = (_link(name, f"usr/{name}"), b"")
    for name, mode in _FOLDERS.items():
        members[name] = (_folder(name, mode), b"")
    members[_STATE] = (_folder(_STATE, 0o700), b"")
    for name, text in (("etc/passwd", _USERS), ("etc/group", _GROUPS)):
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(text), 0o644
        members[name] = (info, text.encode())
    for name in list(members):
        for parent in list(Path(name).parents)[:-1]:
            members.setdefault(str(parent), (_folder(str(parent), 0o755), b""))
    with tarfile.open(output, "w", format=tarfile.GNU_FORMAT) as tar:
        for name in sorted(members):
            info, content = members[name]
            tar.addfile(_normalize(info), io.BytesIO(content))


def _unpack(deb: Path) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(_data_of(deb)), mode="r:*") as tar:
        for info in tar:
            name = info.name.removeprefix("./").strip("/")
            first, _, rest = name.partition("/")
            name = f"usr/{name}" if first in _MERGED and rest else name
            if not name or name in _MERGED or f"{name}/".startswith(_LEFT_OUT) or name.endswith("/sitecustomize.py"):
                continue
            if info.islnk():
                target = info.linkname.removeprefix("./")
                info.linkname = f"usr/{target}" if target.split("/")[0] in _MERGED else target
            info.name = name
            file = tar.extractfile(info) if info.isreg() else None
            yield info, file.read() if file is not None else b""


def _data_of(deb: Path) -> bytes:
    """The member `data.tar.*` of a package (deb(5): an ar archive)."""
    data = deb.read_bytes()
    place = len(_AR_MAGIC)
    if not data.startswith(_AR_MAGIC):
        raise SystemExit(f"{deb.name}: is no Debian package")
    while place < len(data):
        header = data[place : place + _AR_HEADER]
        name, size = header[:16].decode().strip().rstrip("/"), int(header[48:58])
        place += _AR_HEADER
        if name.startswith("data.tar"):
            return data[place : place + size]
        place += size + size % 2
    raise SystemExit(f"{deb.name}: holds no data")


def _normalize(info: tarfile.TarInfo) -> tarfile.TarInfo:
    owner = _OWNER if info.name == _STATE else 0
    info.mtime, info.uid, info.gid, info.uname, info.gname = 0, owner, owner, "", ""
    info.mode &= 0o1777  # Nothing is set-user-id in an image where nobody may become another.
    info.pax_headers = {}
    return info


def _folder(name: str, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, mode
    return info


def _link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = tarfile.SYMTYPE, target, 0o777
    return info
