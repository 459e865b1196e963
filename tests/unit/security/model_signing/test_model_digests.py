"""Hashing many files: right, in parallel, noticing change, and stoppable."""

import hashlib
import os
import threading
from pathlib import Path

import pytest
from blake3 import blake3

from security.errors import ModelFolderRejected
from security.model_signing import digests as digests_module
from security.model_signing.algorithms import BLAKE3
from security.model_signing.digests import hash_files
from security.model_signing.folder import ListedFile, ModelFolder


def test_digests_are_those_of_hashlib(tmp_path: Path) -> None:
    """Sizes around the chunk's, the empty file included, for one thread and for several."""
    contents = {f"file{size}": os.urandom(size) for size in (0, 1, (1 << 18) - 1, 1 << 18, (1 << 18) + 1, 1_000_000)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    expected = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    with ModelFolder(tmp_path) as folder:
        for num_threads in (1, 4, None):
            assert hash_files(folder, folder.list_files(), num_threads=num_threads) == expected


def test_blake3_digests_are_those_of_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where several threads share a large file."""
    monkeypatch.setattr(digests_module, "_LARGE_BYTES", 1 << 20)
    contents = {f"file{size}": os.urandom(size) for size in (0, 1, 1 << 18, (1 << 20) + 1, 5_000_000)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    expected = {name: blake3(content).hexdigest() for name, content in contents.items()}
    with ModelFolder(tmp_path) as folder:
        for num_threads in (1, 4, None):
            found = hash_files(folder, folder.list_files(), algorithm=BLAKE3, num_threads=num_threads)
            assert found == expected


def test_sparse_files_are_hashed_in_bounded_memory(tmp_path: Path) -> None:
    """A hole reads as zeros; a file is never held whole (64 MiB here, and two buffers of 256 KiB)."""
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 26)
    with ModelFolder(tmp_path) as folder:
        found = hash_files(folder, folder.list_files())
    assert found["sparse"] == hashlib.sha256(bytes(1 << 26)).hexdigest()


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    """It never goes back, never past the total, and its last word is the total."""
    for number in range(5):
        (tmp_path / str(number)).write_bytes(bytes(1 << 20))
    reports: list[tuple[int, int]] = []
    with ModelFolder(tmp_path) as folder:
        hash_files(folder, folder.list_files(), progress=lambda done, total: reports.append((done, total)))
    assert reports[-1] == (5 << 20, 5 << 20)
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)


def listed(folder: ModelFolder, name: str) -> ListedFile:
    """One file's entry."""
    return next(file for file in folder.list_files() if file.name == name)


@pytest.mark.parametrize("change", ["longer", "shorter", "exchanged"])
def test_file_that_changes_after_it_was_listed_is_refused(tmp_path: Path, change: str) -> None:
    """A folder under change is neither signed nor verified."""
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    with ModelFolder(tmp_path) as folder:
        files = folder.list_files()
        if change == "exchanged":
            (tmp_path / "other").write_bytes(b"54321")
            (tmp_path / "other").rename(path)
        else:
            os.truncate(path, 6 if change == "longer" else 4)
        with pytest.raises(ModelFolderRejected, match=r"^file: changed while it was read"):
            hash_files(folder, files)


def test_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written to in place between first and last byte: its digest would be that of neither state."""
    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 20))
    os.utime(path, ns=(1, 1))
    real = digests_module._hash_descriptor

    def hash_and_write(descriptor: int, file: ListedFile, counter: object) -> str:
        digest = real(descriptor, file, counter)  # type: ignore[arg-type]
        with path.open("r+b") as writer:
            writer.write(b"x")
        return digest

    monkeypatch.setattr(digests_module, "_hash_descriptor", hash_and_write)
    with ModelFolder(tmp_path) as folder, pytest.raises(ModelFolderRejected, match="changed while it was read"):
        hash_files(folder, [listed(folder, "file")])


@pytest.mark.parametrize("num_bytes", [0, 5])
def test_read_that_ends_early_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_bytes: int) -> None:
    """A file cut short and restored while it is read: what was hashed is not the whole."""
    (tmp_path / "file").write_bytes(b"0123456789")
    real, reads = os.readv, []

    def read_once(descriptor: int, buffers: list[memoryview]) -> int:
        reads.append(descriptor)
        return real(descriptor, [buffers[0][:num_bytes]]) if len(reads) == 1 else 0

    monkeypatch.setattr(digests_module.os, "readv", read_once)
    with ModelFolder(tmp_path) as folder, pytest.raises(ModelFolderRejected, match="changed while it was read"):
        hash_files(folder, folder.list_files())


def test_first_error_stops_the_other_threads(tmp_path: Path) -> None:
    """A refusal does not wait until a large file is hashed to its end; no thread outlives the call."""
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 38)  # Sparse: 256 GiB, minutes of hashing.
    (tmp_path / "gone").write_bytes(b"1")
    before = set(threading.enumerate())
    with ModelFolder(tmp_path) as folder:
        files = folder.list_files()
        (tmp_path / "gone").unlink()
        with pytest.raises(ModelFolderRejected, match=r"^gone: cannot be opened"):
            hash_files(folder, files, num_threads=2)
    assert set(threading.enumerate()) <= before  # One that another test left may end meanwhile.


def test_interrupt_stops_hashing(tmp_path: Path) -> None:
    """Ctrl-C arrives in the thread that waits, which the progress callback stands in for."""
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 38)

    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with ModelFolder(tmp_path) as folder, pytest.raises(KeyboardInterrupt):
        hash_files(folder, folder.list_files(), progress=interrupt)
