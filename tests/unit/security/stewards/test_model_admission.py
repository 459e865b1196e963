"""Admission: what must hold before a model is loaded, and each way in which it does not."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from blake3 import blake3

from security.errors import ModelFolderRejected, ModelNotApproved, ModelRejected, ModelSignatureRejected
from security.model_signing.signing import sign_model
from security.stewards.admission import verify_item
from security.stewards.approving import approve_model, promote_model, retire_model
from security.stewards.envelope import Envelope, encode_envelope, key_id_of, parse_envelope, sign_envelope
from security.stewards.importing import Source, import_model
from security.stewards.role_file import parse_role_file
from security.stewards.statements import STATEMENT_PAYLOAD_TYPE
from security.stewards.store import FILES, Item, ModelStore
from tests.support.controls import control
from tests.support.stewardship import Holder, Stewardship, role_document


def people_key(people: Stewardship, name: str) -> str:
    """The id of somebody's key."""
    return key_id_of(people.people[name].key.public_key())


def approvals_of(item: Item) -> list[Path]:
    """The approvals' files."""
    return sorted((item.path / "approvals").iterdir())


@control("3.4.5", "AC-3(2)", "CM-5", "CM-5(1)", "SR-3")
def test_two_other_stewards_make_a_model_admissible(approved: Item, people: Stewardship) -> None:
    """The name, who imported, who approved."""
    admitted = verify_item(approved, people.roles)
    assert (admitted.name, admitted.importer, admitted.approvers) == ("tiny", "ines", ("ada", "bob"))
    assert admitted.root == approved.root


@control("3.1.4", "3.4.5", "AC-5", "CM-3(1)", "CM-5")
def test_one_approval_is_not_enough(take: Callable[[], Item], people: Stewardship) -> None:
    """Nor is one steward who approves twice, with one key or with two."""
    item = take()
    with pytest.raises(ModelNotApproved, match="approved by 0 stewards"):
        verify_item(item, people.roles)
    approve_model(item, people.roles, people.signer("ada"))
    approve_model(item, people.roles, people.signer("ada"))
    with pytest.raises(ModelNotApproved, match=r"approved by 1 stewards other than the importer \(ada\), expected 2"):
        verify_item(item, people.roles)
    second_key = Holder("ada")
    document = role_document(
        {
            "ines": (["importer"], [people.people["ines"]]),
            "ada": (["steward"], [people.people["ada"], second_key]),
            "bob": (["steward"], [people.people["bob"]]),
        }
    )
    roles = parse_role_file(json.dumps(document).encode())
    approve_model(item, roles, second_key.signer)
    assert len(approvals_of(item)) == 2
    with pytest.raises(ModelNotApproved, match="approved by 1 stewards"):
        verify_item(item, roles)


@control("3.1.4", "AC-5")
def test_importer_cannot_approve(take: Callable[[], Item], people: Stewardship) -> None:
    """Refused by the command, and not counted where somebody puts the file there by hand."""
    item = take()
    approve_model(item, people.roles, people.signer("ada"))
    with pytest.raises(ModelNotApproved, match="ines imported this model"):
        approve_model(item, people.roles, people.signer("ines"))
    payload = parse_envelope(approvals_of(item)[0].read_bytes()).payload
    forged = sign_envelope(STATEMENT_PAYLOAD_TYPE, payload, people.signer("ines"))
    (item.path / "approvals" / "x.dsse").write_bytes(forged)
    with pytest.raises(ModelNotApproved, match="approved by 1 stewards"):
        verify_item(item, people.roles)


def test_approvals_by_others_count_nothing(take: Callable[[], Item], people: Stewardship) -> None:
    """By an operator, by a stranger, over another payload, and rubbish."""
    item = take()
    with pytest.raises(ModelNotApproved, match="olga is not steward"):
        approve_model(item, people.roles, people.signer("olga"))
    approve_model(item, people.roles, people.signer("ada"))
    payload = parse_envelope(approvals_of(item)[0].read_bytes()).payload
    folder = item.path / "approvals"
    for number, signer in enumerate((people.signer("olga"), Holder("eve").signer)):
        (folder / f"{number}.dsse").write_bytes(sign_envelope(STATEMENT_PAYLOAD_TYPE, payload, signer))
    altered = payload.replace(b'"steward":"ada"', b'"steward":"bob"')
    good = parse_envelope((folder / f"{people_key(people, 'ada')}.dsse").read_bytes())
    (folder / "2.dsse").write_bytes(encode_envelope(Envelope(good.payload_type, altered, good.signatures)))
    (folder / "3.dsse").write_bytes(b"rubbish")
    with pytest.raises(ModelNotApproved, match="approved by 1 stewards"):
        verify_item(item, people.roles)


def test_approvals_are_for_one_model_only(
    approved: Item, people: Stewardship, store: ModelStore, source: Source
) -> None:
    """Mixed and matched: approvals of one model beside another, and an import statement under another name."""
    (source.folder / "config.json").write_bytes(b'{"worse": 1}')
    other = import_model(source, store, people.roles, people.signer("ines"), ()).item
    (other.path / "approvals").mkdir()
    for path in approvals_of(approved):
        (other.path / "approvals" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ModelNotApproved, match="approved by 0 stewards"):
        verify_item(other, people.roles)
    (other.path / "import.dsse").write_bytes((approved.path / "import.dsse").read_bytes())
    with pytest.raises(ModelSignatureRejected, match="is about"):
        verify_item(other, people.roles)
    (other.path / "model.sig").write_bytes((approved.path / "model.sig").read_bytes())
    with pytest.raises(ModelSignatureRejected, match="is over"):
        verify_item(other, people.roles)


def test_new_import_statement_needs_new_approvals(approved: Item, people: Stewardship) -> None:
    """The stewards approved a licence and an origin; the importer cannot change them afterwards."""
    payload = parse_envelope((approved.path / "import.dsse").read_bytes()).payload
    altered = payload.replace(b"a disk from the vendor", b"somewhere else entirely")
    assert altered != payload
    envelope = sign_envelope(STATEMENT_PAYLOAD_TYPE, altered, people.signer("ines"))
    (approved.path / "import.dsse").write_bytes(envelope)
    with pytest.raises(ModelNotApproved, match="approved by 0 stewards"):
        verify_item(approved, people.roles)


def test_steward_who_left_counts_no_more(approved: Item, people: Stewardship) -> None:
    """A role file without bob: his approvals of earlier are not enough for a new start."""
    document = role_document(
        {
            "ines": (["importer"], [people.people["ines"]]),
            "ada": (["steward"], [people.people["ada"]]),
            "bob": (["operator"], [people.people["bob"]]),
        },
        version=2,
    )
    with pytest.raises(ModelNotApproved, match="approved by 1 stewards"):
        verify_item(approved, parse_role_file(json.dumps(document).encode()))


def test_signature_by_somebody_else_is_refused(approved: Item, people: Stewardship) -> None:
    """A steward's key does not vouch for files; only an importer's does."""
    approved.signature.unlink()
    sign_model(approved.files, people.signer("ada"), approved.signature)
    with pytest.raises(ModelSignatureRejected, match="another key"):
        verify_item(approved, people.roles)


def test_names_are_compared_both_ways(approved: Item, people: Stewardship) -> None:
    """An unlisted file, and one that is gone."""
    (approved.files / "extra.json").touch()
    with pytest.raises(ModelFolderRejected, match=r"extra\.json: not listed"):
        verify_item(approved, people.roles)
    (approved.files / "extra.json").unlink()
    (approved.files / "LICENSE").unlink()
    with pytest.raises(ModelFolderRejected, match="LICENSE: missing"):
        verify_item(approved, people.roles)


@control("3.14.2", "SI-3", "SI-7")
def test_file_swapped_between_check_and_use_is_found(approved: Item, people: Stewardship) -> None:
    """The evidence is good, and the bytes that were loaded are others."""
    admitted = verify_item(approved, people.roles)
    digests = {
        "config.json": hashlib.sha256((approved.files / "config.json").read_bytes()).hexdigest(),
        "model.safetensors": blake3((approved.files / "model.safetensors").read_bytes()).hexdigest(),
    }
    admitted.verify_loaded(digests, lambda name: name in digests)
    swapped = digests | {"model.safetensors": blake3(b"other").hexdigest()}
    with pytest.raises(ModelFolderRejected, match=r"model\.safetensors: changed"):
        admitted.verify_loaded(swapped, lambda name: name in digests)
    with pytest.raises(ModelFolderRejected, match=r"evil\.safetensors: not listed"):
        admitted.verify_loaded(digests | {"evil.safetensors": "00"}, lambda name: name in digests)
    with pytest.raises(ModelFolderRejected, match="was not there when the model was loaded"):
        admitted.verify_loaded({"config.json": digests["config.json"]}, lambda name: name in digests)


def test_promotion_needs_approval_and_makes_the_name(
    take: Callable[[], Item], people: Stewardship, store: ModelStore
) -> None:
    """The link leads to the very files, out of quarantine; another name leads nowhere."""
    item = take()
    with pytest.raises(ModelNotApproved):
        promote_model(store, item, people.roles)
    assert not store.promoted()
    for name in ("ada", "bob"):
        approve_model(item, people.roles, people.signer(name))
    promote_model(store, item, people.roles)
    found = store.item_at(store.path_of("tiny"))
    assert found is not None
    assert (found[0], found[1].root) == ("tiny", item.root)
    assert (store.path_of("tiny") / "config.json").is_file()
    assert not item.path.exists()
    with pytest.raises(ModelNotApproved, match="no model is promoted"):
        store.item_at(store.path_of("other"))
    assert store.item_at(store.path / "elsewhere") is None


def test_retired_model_is_refused_for_ever(approved: Item, people: Stewardship, store: ModelStore) -> None:
    """Its name stands for nothing, and it cannot be promoted again."""
    promote_model(store, approved, people.roles)
    item = store.find(approved.root[:12])
    with pytest.raises(ModelNotApproved, match="olga is not steward"):
        retire_model(store, item, people.roles, people.signer("olga"), "why not")
    retire_model(store, item, people.roles, people.signer("bob"), "its licence ended")
    assert store.promoted() == {}
    with pytest.raises(ModelNotApproved, match="was retired"):
        promote_model(store, item, people.roles)


def test_link_out_of_the_store_is_no_promotion(approved: Item, store: ModelStore, tmp_path: Path) -> None:
    """Whoever can write there cannot point a name at a folder of their own, or at quarantine."""
    store.prepare()
    evil = tmp_path / "evil" / approved.root / FILES
    evil.mkdir(parents=True)
    for target in (evil, approved.files):
        link = store.path_of("tiny")
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        with pytest.raises(ModelNotApproved, match="no model is promoted"):
            store.item_at(link)


def test_missing_evidence_is_said(approved: Item, people: Stewardship) -> None:
    """Each piece by itself."""
    for name in ("import.dsse", "model.sig"):
        kept = (approved.path / name).read_bytes()
        (approved.path / name).unlink()
        with pytest.raises(ModelRejected):
            verify_item(approved, people.roles)
        (approved.path / name).write_bytes(kept)
    assert verify_item(replace(approved), people.roles)
