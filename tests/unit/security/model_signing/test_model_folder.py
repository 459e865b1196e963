"""An open model folder: what it lists, what it refuses, and that nothing is reached through a link."""

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from security.errors import ModelFolderRejected
from security.model_signing import folder as folder_module
from security.model_signing.folder import ModelFolder
from security.model_signing.names import MAX_DEPTH, MAX_NAME_BYTES, problem_of_name, show_name


def list_names(path: Path, **options: object) -> list[str]:
    """Names as they are listed."""
    with ModelFolder(path) as folder:
        return [file.name for file in folder.list_files(**options)]


def test_names_come_in_order_of_code_points(tmp_path: Path) -> None:
    """`.` sorts before `/`, upper case before lower, and what is outside ASCII last: the order that is signed."""
    names = ["a/b", "a.txt", "a", "Z", "é", "b/c/d"]
    for name in names:
        path = tmp_path / (name if name != "a" else "a0")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert list_names(tmp_path) == ["Z", "a.txt", "a/b", "a0", "b/c/d", "é"]


def test_exclusions_hold_at_the_top_only(tmp_path: Path) -> None:
    """`.git` below a subfolder is a file like any other (OMS section 6.2.1)."""
    for name in (".git/objects/x", "sub/.git/x", ".gitignore", ".gitignored"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list_names(tmp_path, excluded=(".git", ".gitignore")) == [".gitignored", "sub/.git/x"]


@pytest.mark.parametrize("where", ["link", "sub/link", ".git"])
@pytest.mark.parametrize("target", ["file", "sub", "/etc/passwd", "nowhere"])
def test_symbolic_links_are_refused(tmp_path: Path, where: str, target: str) -> None:
    """To files, folders, the outside or nothing: none is followed, none passed over, not even where exclusions are."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / where).symlink_to(target)
    with pytest.raises(ModelFolderRejected, match=f"^{where}: a symbolic link"):
        list_names(tmp_path, excluded=(".git",))


def test_pipes_and_sockets_are_refused(tmp_path: Path) -> None:
    """What is no regular file is refused by its name, and never opened, so nobody waits for a pipe's other end."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelFolderRejected, match=r"^pipe: a device, pipe or socket"):
        list_names(tmp_path)
    with ModelFolder(tmp_path) as folder, pytest.raises(ModelFolderRejected, match=r"^pipe: not a regular file"):
        folder.open_file("pipe")
    (tmp_path / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "socket"))
        with pytest.raises(ModelFolderRejected, match=r"^socket: a device, pipe or socket"):
            list_names(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a device node")
def test_device_nodes_are_refused(tmp_path: Path) -> None:
    """A device could give other bytes each time it is read."""
    try:
        os.mknod(tmp_path / "zero", 0o600 | 0o020000, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("device nodes cannot be made in this container")
    with pytest.raises(ModelFolderRejected, match=r"^zero: a device, pipe or socket"):
        list_names(tmp_path)


@pytest.mark.parametrize("name", [b"\xff\xfe", b"new\nline", b"esc\x1b[2J", b"back\\slash", b"del\x7f"])
def test_names_that_cannot_be_signed_are_refused(tmp_path: Path, name: bytes) -> None:
    """Not UTF-8, control characters, and what Windows reads as a separator; the message is safe for a terminal."""
    os.close(os.open(os.fsencode(tmp_path) + b"/" + name, os.O_CREAT | os.O_WRONLY))
    with pytest.raises(ModelFolderRejected, match="name cannot be signed") as refused:
        list_names(tmp_path)
    assert str(refused.value).isprintable()
    assert str(refused.value).isascii()


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a million files ends in a message; the count goes over all subfolders, empty ones included."""
    monkeypatch.setattr(folder_module, "MAX_FILES", 10)
    for number in range(5):
        (tmp_path / f"sub{number}").mkdir()
        (tmp_path / f"sub{number}" / "file").touch()
    assert len(list_names(tmp_path)) == 5
    (tmp_path / "sub0" / "more").mkdir()
    with pytest.raises(ModelFolderRejected, match="more than 10 files"):
        list_names(tmp_path)


def test_too_deep_folders_are_refused(tmp_path: Path) -> None:
    """Depth is bounded, so that the walk is."""
    (tmp_path / "/".join("d" * (MAX_DEPTH + 1))).mkdir(parents=True)
    with pytest.raises(ModelFolderRejected, match="nested deeper"):
        list_names(tmp_path)


def test_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    """Missing, or a file."""
    (tmp_path / "file").touch()
    for name in ("missing", "file", "nul\0"):
        with pytest.raises(ModelFolderRejected, match="not a folder"):
            ModelFolder(tmp_path / name)


def test_files_are_opened_below_the_folder_only(tmp_path: Path) -> None:
    """A subfolder that becomes a link after it was listed does not lead anywhere."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").touch()
    (tmp_path / "model" / "sub").mkdir(parents=True)
    with ModelFolder(tmp_path / "model") as folder:
        (tmp_path / "model" / "sub").rmdir()
        (tmp_path / "model" / "sub").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(ModelFolderRejected, match=r"^sub/secret: cannot be opened"):
            folder.open_file("sub/secret")


def test_folder_stays_the_same_when_it_is_renamed(tmp_path: Path) -> None:
    """What was opened is what is read, whatever lies at the path by then."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "good").touch()
    with ModelFolder(tmp_path / "model") as folder:
        (tmp_path / "model").rename(tmp_path / "old")
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "evil").touch()
        assert [file.name for file in folder.list_files()] == ["good"]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../b",
        "a/./b",
        "./a",
        "a//b",
        "a/",
        "..",
        ".",
        "a\0b",
        "a\\b",
        "x" * 1025,
        "\ud800",
    ],
)
def test_path_tricks_are_problems(name: str) -> None:
    """One spelling for each file, below the folder."""
    assert problem_of_name(name) is not None


@given(st.text(max_size=40))
def test_good_names_stay_below_the_folder(name: str) -> None:
    """Whatever passes names a path that normalization does not change and that does not leave the folder."""
    if problem_of_name(name) is None:
        assert os.path.normpath(name) == name
        assert not name.startswith(("/", "../"))
        assert len(name.encode()) <= MAX_NAME_BYTES


@given(st.text(max_size=40))
def test_shown_names_are_harmless_on_a_terminal(name: str) -> None:
    """No escape sequence and no line break gets through."""
    assert show_name(name).isprintable()
