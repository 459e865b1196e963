"""Bundles: whole or refused, and what was verified is what is used."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import KernelMissing
from runtime.kernels.bundle import Bundle, load_bundle, write_bundle
from runtime.kernels.libraries import BundleLibraries
from runtime.kernels.manifest import MANIFEST_FILE, Manifest, build_manifest, parse_manifest
from runtime.kernels.sources import digest_sources
from tests.support.frozen_bundles import SOURCES, VERSIONS, kernel_entry, small_bundle

MANIFEST = small_bundle()[0].encode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "bundle", *small_bundle())
    return tmp_path / "bundle"


def test_what_is_written_is_read(folder: Path) -> None:
    """Manifest, contents and digest."""
    manifest, contents = small_bundle()
    assert load_bundle(folder) == Bundle(manifest, contents)
    assert len(manifest.digest) == 64


def test_the_same_kernels_are_the_same_bundle_in_any_order() -> None:
    """The digest stands for what is in it."""
    manifest, _ = small_bundle({"N": 4, "EPS": 1e-5})
    again, _ = small_bundle({"EPS": 1e-5, "N": 4})
    turned = build_manifest(manifest.arch, SOURCES, VERSIONS, reversed(manifest.kernels), manifest.libraries)
    assert manifest.encode() == again.encode() == turned.encode()


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7), number=st.integers(0, 3))
def test_one_flipped_bit_in_any_file_refuses_the_bundle(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int, number: int
) -> None:
    """In the manifest as in a kernel. A manifest that still parses is another bundle, and says so by its digest."""
    folder = tmp_path_factory.mktemp("flipped") / "bundle"
    write_bundle(folder, *small_bundle())
    path = sorted(folder.iterdir())[number]
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1 << bit
    path.write_bytes(content)
    if path.name != MANIFEST_FILE:
        with pytest.raises(KernelMissing, match="was changed"):
            load_bundle(folder)
        return
    try:
        loaded = load_bundle(folder)
    except KernelMissing:
        return
    assert loaded.manifest.digest != small_bundle()[0].digest


def kernel_file(folder: Path) -> Path:
    return sorted(folder.glob("*.cubin"))[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "truncated"),
        (lambda path: path.write_bytes(path.read_bytes() + b"\0"), "found more"),
        (lambda path: path.unlink(), "No such file"),
        (lambda path: (path.unlink(), path.mkdir()), "directory"),
        (lambda path: (path.parent / MANIFEST_FILE).unlink(), "No such file"),
    ],
    ids=["truncated", "longer", "missing", "a folder", "no manifest"],
)
def test_a_damaged_file_is_named(folder: Path, change: Any, said: str) -> None:
    """With what is wrong about it."""
    change(kernel_file(folder))
    with pytest.raises(KernelMissing, match=said):
        load_bundle(folder)


def test_files_that_change_after_they_were_verified_change_nothing(folder: Path) -> None:
    """They are read once."""
    bundle = load_bundle(folder)
    for path in folder.iterdir():
        path.write_bytes(b"other")
    assert bundle.contents == small_bundle()[1]


def test_a_library_is_loaded_from_the_verified_bytes(folder: Path) -> None:
    """From a file in memory whose path stays its own."""
    bundle = load_bundle(folder)
    for path in folder.iterdir():
        path.unlink()
    loaded: list[bytes] = []

    class Module:
        plan = "plan"

    def load(path: Path) -> Module:
        loaded.append(path.read_bytes())
        return Module()

    libraries = BundleLibraries(bundle, load)
    assert libraries.function("fa3_bf16_bf16_d128", "plan") == "plan"
    assert libraries.function("fa3_bf16_bf16_d128", "plan") == "plan"
    assert loaded == [b"library" * 5]
    with pytest.raises(KernelMissing, match="lacks library fa2_f16_f16_d64"):
        libraries.function("fa2_f16_f16_d64", "plan")


def test_what_a_configuration_needs_and_is_not_there_is_named() -> None:
    """Kernels by their variant, libraries by name; of many, three and the number of the rest."""
    bundle = Bundle(*small_bundle())
    present = [entry.variant for entry in bundle.manifest.kernels]
    bundle.verify_holds(present, ["fa3_bf16_bf16_d128"])
    absent = [kernel_entry(b"x", constants={"N": n}).variant for n in range(5)]
    with pytest.raises(KernelMissing, match=r"lacks linear.dot\(\*bf16, \*fp32, i32\) with N=0; 2 warps.* and 3 more"):
        bundle.verify_holds([*present, *absent], ["fa3_bf16_bf16_d128", "fa2_f16_f16_d64"])


def test_a_bundle_of_other_sources_is_refused() -> None:
    """Whatever its variants are called."""
    manifest, contents = small_bundle()
    with pytest.raises(KernelMissing, match="built from sources 5555"):
        Bundle(manifest, contents).verify_sources()
    ours = build_manifest(manifest.arch, digest_sources(), VERSIONS, manifest.kernels, manifest.libraries)
    Bundle(ours, contents).verify_sources()


@pytest.mark.parametrize(
    "change", [("a.py", b"2"), ("b.py", b"1"), ("aa.py", b"")], ids=["content", "name", "a file more"]
)
def test_sources_are_known_by_names_and_contents(tmp_path: Path, change: tuple[str, bytes]) -> None:
    """A change of either is another digest; what is no source is left out."""
    (tmp_path / "a.py").write_bytes(b"1")
    before = digest_sources(tmp_path)
    (tmp_path / "a.pyc").write_bytes(b"compiled")
    assert digest_sources(tmp_path) == before
    if change[0] == "b.py":
        (tmp_path / "a.py").unlink()
    (tmp_path / change[0]).write_bytes(change[1])
    assert digest_sources(tmp_path) != before


def test_a_folder_that_holds_something_is_left_alone(folder: Path) -> None:
    """A bundle is never mixed with another."""
    with pytest.raises(FileExistsError):
        write_bundle(folder, *small_bundle())
    assert load_bundle(folder).manifest == small_bundle()[0]


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """Whole or not at all."""
    manifest, contents = small_bundle()
    contents.popitem()
    with pytest.raises(KeyError):
        write_bundle(tmp_path / "bundle", manifest, contents)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "other",
    [
        MANIFEST.strip(),
        MANIFEST.replace(b'"arch":', b'"arch": '),
        MANIFEST.replace(b"sm_90a", b"sm_ninety"),
        MANIFEST.replace(b"casemate-kernels-1", b"casemate-kernels-2"),
        MANIFEST.replace(b'"launch_pdl":false', b'"launch_pdl":false,"more":1'),
        MANIFEST.replace(b'"shared_bytes":1024', b'"shared_bytes":999999'),
        MANIFEST.replace(b'"symbol":"dot"', b'"symbol":"../dot"'),
        b"[" * 100_000,
        b"",
    ],
    ids=["newline", "space", "arch", "format", "unknown key", "shared memory", "symbol", "nesting", "empty"],
)
def test_other_writings_and_values_are_refused(other: bytes) -> None:
    """One form only, unknown keys and values beyond their bounds included."""
    assert other != MANIFEST
    with pytest.raises(KernelMissing, match=MANIFEST_FILE):
        parse_manifest(other)


def test_a_kernel_that_is_there_twice_is_refused() -> None:
    """Which of the two would run must not be a question."""
    kernels = [kernel_entry(b"one"), kernel_entry(b"two")]
    with pytest.raises(KernelMissing, match="twice"):
        parse_manifest(build_manifest("sm_90a", SOURCES, VERSIONS, kernels, ()).encode())


@given(st.binary(max_size=200) | st.integers(0, len(MANIFEST) - 1).map(lambda end: MANIFEST[:end]))
def test_nothing_but_the_family_leaves_the_parser(content: bytes) -> None:
    """Whatever the bytes."""
    with pytest.raises(KernelMissing):
        parse_manifest(content)


def test_a_parsed_manifest_is_the_one_that_was_encoded() -> None:
    """Constants keep their kinds: true is not 1, and 0.0 is not 0."""
    constants: dict[str, Any] = {"A": True, "B": 1, "C": 0.0, "D": 0, "E": 0.08838834764831845, "F": "bf16"}
    manifest, _ = small_bundle(constants)
    parsed = parse_manifest(manifest.encode())
    assert isinstance(parsed, Manifest)
    (entry,) = [entry for entry in parsed.kernels if entry.kernel == "linear.dot"]
    assert {name: (type(value), value) for name, value in entry.constants.items()} == {
        name: (type(value), value) for name, value in constants.items()
    }
