"""Where models lie: one folder, in it one item for each set of files, named by the manifest's digest.

    incoming-<random>/        a copy in progress; removed when it fails, and at the next import
    quarantine/<root>/        imported, not promoted
    approved/<root>/          promoted at least once
        files/                the model's files, exactly those signed
        model.sig             the importer's OpenSSF model signature
        import.dsse           what the importer states: where from, which licence, which checks
        approvals/<key>.dsse  one steward's approval each
        retired.dsse          a steward's retirement, final
    promoted/<name>           link to approved/<root>/files: what an engine's `model_path` names
    outbox/                   events that wait for the log

Items never change after they are made, but for the approvals and the retirement that are added. Names and states move by
rename and link, so that a reader sees the old or the new and nothing between.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from security.errors import ModelFolderRejected, ModelNotApproved
from security.keys import make_private_directory, write_replacing

FILES, SIGNATURE, IMPORT, APPROVALS, RETIREMENT = "files", "model.sig", "import.dsse", "approvals", "retired.dsse"
INCOMING_PREFIX = "incoming-"
_QUARANTINE, _APPROVED, _PROMOTED = "quarantine", "approved", "promoted"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ROOT = re.compile(r"[0-9a-f]{64}")
_MAX_EVIDENCE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Item:
    """One model in the store."""

    path: Path
    root: str
    is_approved: bool

    @property
    def files(self) -> Path:
        """The model folder."""
        return self.path / FILES

    @property
    def signature(self) -> Path:
        """The importer's signature over the model folder."""
        return self.path / SIGNATURE

    def read(self, name: str) -> bytes | None:
        """A piece of evidence, bounded; None if it is not there. Raises: ModelFolderRejected."""
        return _read_evidence(self.path / name)

    def read_approvals(self) -> list[bytes]:
        """Every approval that lies there, in the order of their names."""
        with contextlib.suppress(FileNotFoundError):
            paths = sorted((self.path / APPROVALS).glob("*.dsse"))
            return [data for path in paths if (data := _read_evidence(path)) is not None]
        return []


class ModelStore:
    """The folder of all models."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self) -> None:
        """Make the folders. Raises: KeyUnusable."""
        for name in (_QUARANTINE, _APPROVED, _PROMOTED):
            make_private_directory(self.path / name)

    def items(self) -> Iterator[Item]:
        """All models, by digest: those in quarantine first."""
        for state in (_QUARANTINE, _APPROVED):
            with contextlib.suppress(FileNotFoundError):
                for name in sorted(os.listdir(self.path / state)):
                    if _ROOT.fullmatch(name):
                        yield Item(self.path / state / name, name, state == _APPROVED)

    def find(self, root: str) -> Item:
        """The item whose digest begins with some digits.

        Raises: ModelFolderRejected if there is none, or several.
        """
        prefix = root.removeprefix("sha256:")
        found = [item for item in self.items() if len(prefix) >= 8 and item.root.startswith(prefix)]
        if len(found) != 1:
            raise ModelFolderRejected(f"{root[:80]!r}: expected the digest of one model, or 8 or more digits of it")
        return found[0]

    def promoted(self) -> dict[str, str]:
        """Digest of what each name stands for."""
        links = sorted((self.path / _PROMOTED).iterdir()) if (self.path / _PROMOTED).is_dir() else []
        return {link.name: link.readlink().parent.name for link in links if link.is_symlink()}

    def path_of(self, name: str) -> Path:
        """The link that a configuration names. Raises: ModelFolderRejected for what is no name."""
        if not _NAME.fullmatch(name):
            raise ModelFolderRejected(
                f"{name[:80]!r}: a model's name is 1 to 64 letters, digits, dots, dashes, underscores"
            )
        return self.path / _PROMOTED / name

    def item_at(self, path: Path) -> tuple[str, Item] | None:
        """Name and item behind a promoted link; None if the path is none of ours.

        Raises: ModelNotApproved for a link that leads to nothing that was promoted.
        """
        path = Path(os.path.abspath(path))
        if path.parent != Path(os.path.abspath(self.path / _PROMOTED)):
            return None
        target = Path(os.path.realpath(path))
        item = target.parent
        approved = Path(os.path.realpath(self.path / _APPROVED))
        if target.name != FILES or item.parent != approved or not _ROOT.fullmatch(item.name) or not target.is_dir():
            raise ModelNotApproved(f"{path.name}: no model is promoted under this name")
        return path.name, Item(item, item.name, True)

    def new_incoming(self) -> Path:
        """An empty folder for a copy; what earlier imports left is removed."""
        self.prepare()
        for left in self.path.glob(f"{INCOMING_PREFIX}*"):
            shutil.rmtree(left)
        incoming = self.path / f"{INCOMING_PREFIX}{os.urandom(8).hex()}"
        incoming.mkdir(mode=0o700)
        return incoming

    def new_item(self, root: str) -> Item:
        """What will lie in quarantine. Raises: ModelFolderRejected if the same files are there already."""
        if any(item.root == root for item in self.items()):
            raise ModelFolderRejected(f"sha256:{root}: is imported already")
        return Item(self.path / _QUARANTINE / root, root, False)

    def admit_incoming(self, incoming: Path, item: Item) -> None:
        """Put a finished copy into quarantine."""
        incoming.rename(item.path)
        sync_folder(item.path.parent)

    def approve_item(self, item: Item) -> Item:
        """Move an item out of quarantine."""
        if item.is_approved:
            return item
        target = self.path / _APPROVED / item.root
        item.path.rename(target)
        sync_folder(target.parent)
        return Item(target, item.root, True)

    def link(self, name: str, item: Item) -> None:
        """Let a name stand for an item, at once and for all readers."""
        link = self.path_of(name)
        temporary = link.with_name(f".{name}.{os.urandom(4).hex()}")
        temporary.symlink_to(Path("..") / _APPROVED / item.root / FILES)
        temporary.replace(link)
        sync_folder(link.parent)

    def unlink(self, name: str) -> None:
        """Let a name stand for nothing."""
        self.path_of(name).unlink(missing_ok=True)
        sync_folder(self.path / _PROMOTED)


def add_evidence(item: Item, name: str, data: bytes) -> None:
    """Put evidence beside a model. Raises: KeyUnusable."""
    make_private_directory((item.path / name).parent)
    write_replacing(item.path / name, data, mode=0o644)


def sync_folder(path: Path) -> None:
    """Make renames in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_evidence(path: Path) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            return file.read(_MAX_EVIDENCE_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelFolderRejected(f"{path}: cannot be read: {error.strerror}") from None
