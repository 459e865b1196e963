"""What the image is made of: locked by digest, from pins; and what its Dockerfile may and may not do."""

import io
import os
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

from image.base import build_base
from image.build import pack_layout
from image.evidence import find_components, read_statements
from image.lock import CUDA_LOCK, DEBS_LOCK, LEFT_OUT, WHEELS_LOCK
from security.supply_chain.components import parse_debs_lock, parse_wheels_lock
from tests.support.controls import control

ROOT = Path(__file__).parents[3]
_FORBIDDEN = (
    "dash",
    "bash",
    "busybox",
    "coreutils",
    "apt",
    "dpkg",
    "perl-base",
    "gcc",
    "binutils",
    "make",
    "curl",
    "wget",
)


def test_every_line_of_the_lists_has_a_digest() -> None:
    """A line that is not understood would be passed over by whoever reads them."""
    for path, parse in ((WHEELS_LOCK, parse_wheels_lock), (DEBS_LOCK, parse_debs_lock)):
        lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
        assert len(parse(path.read_text())) == len(lines) > 10


def test_locked_wheels_are_the_pinned_ones() -> None:
    """Of what `constraints/cpu.txt` pins, in the same version; torch in its build for processors."""
    text = (ROOT / "constraints/cpu.txt").read_text()
    pins = dict(line.split("==") for line in text.splitlines() if re.fullmatch(r"[a-z0-9-]+==\S+", line))
    assert len(pins) > 50
    for component in parse_wheels_lock(WHEELS_LOCK.read_text()):
        if component.name in pins:
            assert component.version.partition("+")[0] == pins[component.name], component.name
    assert "torch==2.13.0+cpu " in WHEELS_LOCK.read_text()


@control("3.4.1", "CM-2", "SR-3")
@pytest.mark.parametrize("lock", [WHEELS_LOCK, CUDA_LOCK], ids=["cpu", "cuda"])
def test_everything_that_the_product_needs_is_locked(lock: Path) -> None:
    """A dependency that was added since wants `make image-lock`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower() for requirement in project["dependencies"]}
    assert needed <= set(re.findall(r"^([a-z0-9._-]+)==", lock.read_text(), re.MULTILINE))


def test_cuda_image_has_no_compiler_and_only_pinned_wheels() -> None:
    """Its kernels come frozen; each line has a digest, and the version of `constraints/cuda.txt`."""
    text = (ROOT / "constraints/cuda.txt").read_text()
    pins = dict(line.split("==") for line in text.splitlines() if re.fullmatch(r"[a-z0-9-]+==\S+", line))
    lines = [line for line in CUDA_LOCK.read_text().splitlines() if line and not line.startswith("#")]
    names = set()
    for line in lines:
        match = re.fullmatch(r"([a-z0-9-]+)==(\S+)((?: --hash=sha256:[0-9a-f]{64})+)", line)
        assert match is not None, line[:80]
        names.add(match[1])
        assert pins.get(match[1], match[2]) == match[2], match[1]
    assert "torch" in names
    assert not names & {"flashinfer-python", "triton", "transformers", "huggingface-hub", "nvidia-cutlass-dsl", "ninja"}


@control("3.4.6", "3.4.7", "CM-7")
def test_no_shell_compiler_or_package_manager_is_locked() -> None:
    """Nor a client of a download service."""
    names = {component.name for component in find_components()}
    assert not names & {*_FORBIDDEN, *LEFT_OUT, "huggingface-hub", "pip", "transformers"}
    assert not [lock for lock in (WHEELS_LOCK, CUDA_LOCK) if re.search(r"^pip==", lock.read_text(), re.MULTILINE)]
    assert "python3.11-minimal" in names


def read_dockerfile() -> list[tuple[str, str]]:
    """Instructions and their arguments, continuation lines joined."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def test_dockerfile_takes_its_base_by_argument_and_fetches_nothing() -> None:
    """No tag, no address, no shell form: there is no shell to run it."""
    instructions = read_dockerfile()
    assert instructions[0] == ("ARG", "BASE")
    sources = [arguments.split()[0] for name, arguments in instructions if name == "FROM"]
    stages = {arguments.split()[2] for name, arguments in instructions if name == "FROM" and " AS " in arguments}
    assert set(sources) <= {"${BASE}", "scratch", *stages}
    for name, arguments in instructions:
        assert name != "ADD"
        if name in ("RUN", "ENTRYPOINT", "CMD"):
            assert arguments.startswith('["'), arguments
        if name == "RUN":
            assert "--no-index" in arguments
            assert "http" not in arguments


@control("3.4.6", "CM-7")
@pytest.mark.parametrize("target", ["casemate-cpu", "casemate-cuda"])
def test_final_stages_are_from_scratch_and_not_root(target: str) -> None:
    """What is in them was copied in by name; the CUDA one has frozen kernels."""
    instructions = read_dockerfile()
    start = instructions.index(("FROM", f"scratch AS {target}"))
    stage = []
    for instruction in instructions[start + 1 :]:
        if instruction[0] == "FROM":
            break
        stage.append(instruction)
    names = [name for name, _ in stage]
    assert "RUN" not in names
    assert ("USER", "65532:65532") in stage
    assert any("kernels" in arguments for _, arguments in stage) == (target == "casemate-cuda")


def write_deb(path: Path, files: dict[str, bytes]) -> None:
    """A Debian package with these files and nothing else."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size, info.mtime, info.uid, info.mode = len(content), 12345, 1000, 0o4755
            tar.addfile(info, io.BytesIO(content))
    body = data.getvalue()
    header = f"{'data.tar.xz':<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(body):<10}`\n".encode()
    path.write_bytes(b"!<arch>\n" + header + body + (b"\n" if len(body) % 2 else b""))


def test_base_is_the_same_twice_and_merged(tmp_path: Path) -> None:
    """Times, owners and set-user-id bits are gone; `/lib` leads into `/usr`; manuals are left out."""
    (tmp_path / "debs").mkdir()
    files = ("lib/x.so", "usr/bin/tool", "usr/share/man/man1/tool.1", "usr/share/doc/a/copyright")
    write_deb(tmp_path / "debs/a.deb", {name: name.encode() for name in files})
    for name in ("one.tar", "two.tar"):
        build_base(tmp_path / "debs", tmp_path / name)
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as tar:
        members = {member.name: member for member in tar}
    assert members["usr/lib/x.so"].mode == 0o755
    assert {member.mtime for member in members.values()} == {0}
    state = members.pop("var/lib/casemate/state")  # A volume that Compose makes there gets its owner and mode.
    assert (state.uid, state.gid, state.mode) == (65532, 65532, 0o700)
    assert {(member.uid, member.gid) for member in members.values()} == {(0, 0)}
    assert members["lib"].linkname == "usr/lib"
    assert "usr/share/doc/a/copyright" in members
    assert not any("man" in name for name in members)


def test_archive_of_a_layout_is_the_same_twice(tmp_path: Path) -> None:
    """Whenever and by whomever its files were made."""
    digests = set()
    for number, name in enumerate(("one", "two")):
        layout = tmp_path / name
        (layout / "blobs/sha256").mkdir(parents=True)
        for path, content in (("index.json", b"{}"), ("blobs/sha256/aa", b"layer")):
            (layout / path).write_bytes(content)
            os.utime(layout / path, (number, number))
            (layout / path).chmod(0o600 + number * 0o44)
        pack_layout(layout, tmp_path / f"{name}.tar")
        digests.add((tmp_path / f"{name}.tar").read_bytes())
    assert len(digests) == 1


def test_statements_of_the_vendor_can_be_read() -> None:
    """And speak of parts that are there."""
    _, statements = read_statements()
    known = {component.purl for component in find_components()}
    assert {purl for statement in statements for purl in statement.products} <= known


@pytest.mark.long
def test_image_is_the_same_twice(tmp_path: Path) -> None:
    """`make image`, where its inputs were collected and buildah is there: two builds without a network, one digest."""
    import shutil

    if shutil.which("buildah") is None:
        pytest.skip("buildah is not installed")
    if not (ROOT / ".cache/image/wheels").is_dir():
        pytest.skip("`make image-fetch` has not been run: it needs the package index")
    wanted = re.findall(r"^[a-z].*==", WHEELS_LOCK.read_text(), re.MULTILINE)
    if len(list((ROOT / ".cache/image/wheels").iterdir())) != len(wanted) + 1:  # And pip.
        pytest.skip("`make image-fetch` was run for another list of wheels: run it again")
    done = subprocess.run(
        [sys.executable, "-m", "image.build", str(tmp_path / "image.tar")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(set(re.findall(r"build \d: sha256:([0-9a-f]{64})", done.stderr))) == 1
    names = names_in_image(tmp_path / "image.tar")
    assert "opt/casemate/lib/appliance/cli/main.py" in names
    assert not [name for name in names if re.search(r"(^|/)(pip|sh|bash|dash|apt|dpkg|gcc|cc)(/__init__\.py)?$", name)]


def names_in_image(archive: Path) -> set[str]:
    """Every file of every layer."""
    found: set[str] = set()
    with tarfile.open(archive) as image:
        for blob in image.getmembers():
            content = image.extractfile(blob)
            assert content is not None
            if content.read(1) != b"{":  # The manifest, the index and the configuration are JSON.
                content.seek(0)
                with tarfile.open(fileobj=content) as layer:
                    found |= {one.name for one in layer.getmembers() if one.isfile() or one.issym()}
    return found
