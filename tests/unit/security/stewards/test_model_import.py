"""Importing: what enters quarantine, what does not, and that what fails leaves nothing behind."""

import errno
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from security.errors import ModelFolderRejected, ModelNotApproved, ModelSignatureRejected
from security.model_signing.signing import sign_model
from security.model_signing.trust import KeyTrust, verify_signature
from security.model_signing.verification import verify_model
from security.stewards import importing
from security.stewards.admission import read_import
from security.stewards.importing import Source, import_model
from security.stewards.store import Item, ModelStore
from tests.support.controls import control
from tests.support.stewardship import Holder, Stewardship


def leftovers(store: ModelStore) -> list[str]:
    """What lies in the store besides its folders."""
    return [path.name for path in store.path.rglob("*") if path.name not in ("quarantine", "approved", "promoted")]


def test_import_is_signed_and_described(take: Callable[[], Item], people: Stewardship) -> None:
    """An OMS signature that anybody can verify, and a statement with origin, licence and facts."""
    item = take()
    key = people.people["ines"].key.public_key()
    assert verify_model(item.files, item.signature, KeyTrust((key,))).root == item.root
    statement, importer, _ = read_import(item, people.roles)
    assert (statement.model, statement.root, importer.name) == ("tiny", item.root, "ines")
    assert statement.predicate["origin"] == "a disk from the vendor"
    assert list(statement.predicate["licence"]["files"]) == ["LICENSE"]
    assert statement.predicate["num_files"] == 7


@control("3.4.9", "AC-6(1)", "CM-11")
def test_only_an_importer_may_import(people: Stewardship, store: ModelStore, source: Source) -> None:
    """A steward without the role, and somebody whom nobody knows."""
    with pytest.raises(ModelNotApproved, match="ada is not importer"):
        import_model(source, store, people.roles, people.signer("ada"), ())
    with pytest.raises(ModelNotApproved, match="belongs to nobody"):
        import_model(source, store, people.roles, Holder("eve").signer, ())


@control("3.4.8", "3.4.9", "3.7.4", "3.14.2", "CM-7(5)", "CM-11", "SI-3")
@pytest.mark.parametrize(
    "name",
    ["pytorch_model.bin", "modeling_x.py", "model.safetensors.pkl", "run.sh", "LICENSE.py", "x.so", "README.html", "w.gguf"],
)  # fmt: skip
def test_files_that_are_not_listed_kinds_are_refused(
    name: str, people: Stewardship, store: ModelStore, source: Source
) -> None:
    """A list of what is known to be data; the message names the file."""
    (source.folder / name).write_bytes(b"x")
    with pytest.raises(ModelFolderRejected, match=f"{name}: not a kind of file"):
        import_model(source, store, people.roles, people.signer("ines"), ())
    assert not leftovers(store)


@pytest.mark.parametrize("kind", ["symlink", "fifo", "folder link"])
def test_what_is_no_regular_file_is_refused(
    kind: str, people: Stewardship, store: ModelStore, source: Source, tmp_path: Path
) -> None:
    """Links lead elsewhere; a pipe would wait for ever."""
    path = source.folder / "extra.json"
    if kind == "symlink":
        path.symlink_to("/etc/passwd")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        (source.folder / "sub").symlink_to(tmp_path)
    with pytest.raises(ModelFolderRejected, match=r"symbolic link|device, pipe or socket"):
        import_model(source, store, people.roles, people.signer("ines"), ())


def test_a_million_files_are_not_listed_to_the_end(
    people: Stewardship, store: ModelStore, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The count stops at the bound, before anything is read."""
    monkeypatch.setattr("security.model_signing.folder.MAX_FILES", 50)
    for number in range(60):
        (source.folder / f"{number}.json").touch()
    with pytest.raises(ModelFolderRejected, match="holds more than"):
        import_model(source, store, people.roles, people.signer("ines"), ())


def test_large_file_under_a_small_kind_is_refused(people: Stewardship, store: ModelStore, source: Source) -> None:
    """70 GB of sparse tokenizer cost nothing to make; they are refused by their size."""
    with (source.folder / "tokenizer.json").open("r+b") as file:
        file.truncate(70 << 30)
    with pytest.raises(ModelFolderRejected, match="only weights may be larger"):
        import_model(source, store, people.roles, people.signer("ines"), ())
    assert not leftovers(store)


def test_model_without_a_licence_is_refused(people: Stewardship, store: ModelStore, source: Source) -> None:
    """Either its text lies in the folder, or the importer says which it is."""
    (source.folder / "LICENSE").unlink()
    with pytest.raises(ModelFolderRejected, match="holds no licence file"):
        import_model(source, store, people.roles, people.signer("ines"), ())
    assert not leftovers(store)
    imported = import_model(replace(source, licence="MIT"), store, people.roles, people.signer("ines"), ())
    assert read_import(imported.item, people.roles)[0].predicate["licence"] == {"files": {}, "stated": "MIT"}


def test_checks_run_on_the_source_and_on_the_copy(people: Stewardship, store: ModelStore, source: Source) -> None:
    """What was checked is what is kept: a folder that answers differently the second time is refused."""
    seen: list[Path] = []

    def check(folder: Path) -> Mapping[str, str | int]:
        seen.append(folder)
        return {"times": len(seen)}

    with pytest.raises(ModelFolderRejected, match="changed while it was copied"):
        import_model(source, store, people.roles, people.signer("ines"), (check,))
    assert seen[0] == source.folder
    assert seen[1].is_relative_to(store.path)
    assert not leftovers(store)


@control("3.7.4")
def test_vendor_signature_is_verified_over_the_copy(people: Stewardship, store: ModelStore, source: Source) -> None:
    """The vendor's key is on record; a file that differs from what the vendor signed is not imported."""
    vendor = Holder("vendor")
    signature = source.folder / "vendor.sig"
    sign_model(source.folder, vendor.signer, signature)
    signed = replace(source, vendor_signature=signature, vendor_trust=KeyTrust((vendor.key.public_key(),)))
    (source.folder / "config.json").write_bytes(b'{"other": 1}')
    with pytest.raises(ModelFolderRejected, match=r"config\.json: changed"):
        import_model(signed, store, people.roles, people.signer("ines"), ())
    (source.folder / "config.json").write_bytes(b"{}")
    item = import_model(signed, store, people.roles, people.signer("ines"), ()).item
    assert read_import(item, people.roles)[0].predicate["vendor"]["method"] == "key"
    assert not (item.files / "vendor.sig").exists()
    stranger = replace(signed, vendor_trust=KeyTrust((Holder("x").key.public_key(),)))
    with pytest.raises(ModelSignatureRejected, match="another key"):
        import_model(stranger, store, people.roles, people.signer("ines"), ())


def test_full_disk_fails_cleanly(
    people: Stewardship, store: ModelStore, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the copy where it can be known, during it otherwise; nothing stays, and the next import works."""
    usage = importing.shutil.disk_usage(source.folder)
    with monkeypatch.context() as patch:
        patch.setattr(importing.shutil, "disk_usage", lambda _path: usage._replace(free=10))
        with pytest.raises(ModelFolderRejected, match="10 are free"):
            import_model(source, store, people.roles, people.signer("ines"), ())

    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(importing.os, "fsync", fail)
        with pytest.raises(ModelFolderRejected, match="the disk is full"):
            import_model(source, store, people.roles, people.signer("ines"), ())
    assert not leftovers(store)
    assert import_model(source, store, people.roles, people.signer("ines"), ()).item.files.is_dir()


def test_interrupted_copy_is_removed_by_the_next_import(take: Callable[[], Item], store: ModelStore) -> None:
    """A killed import cannot clean up after itself."""
    left = store.new_incoming()
    (left / "files").mkdir()
    take()
    assert not left.exists()


def test_same_files_are_not_imported_twice(take: Callable[[], Item]) -> None:
    """The digest names them; approvals must not be lost by an import over them."""
    take()
    with pytest.raises(ModelFolderRejected, match="is imported already"):
        take()


@pytest.mark.parametrize("name", ["../x", "a/b", "", "-x", ".hidden", "x" * 65, "a b"])
def test_names_are_plain(name: str, people: Stewardship, store: ModelStore, source: Source) -> None:
    """A name becomes a link in a folder."""
    with pytest.raises(ModelFolderRejected, match="a model's name is"):
        import_model(replace(source, name=name), store, people.roles, people.signer("ines"), ())


def test_manifest_is_over_what_lies_there(take: Callable[[], Item], people: Stewardship) -> None:
    """Draft heads, tokenizers and templates are covered like weights."""
    item = take()
    signed = verify_signature(item.signature, KeyTrust((people.people["ines"].key.public_key(),)))
    assert set(signed.digests) == {
        str(path.relative_to(item.files)) for path in item.files.rglob("*") if path.is_file()
    }
    assert json.loads((item.path / "import.dsse").read_bytes())["payloadType"] == "application/vnd.in-toto+json"
