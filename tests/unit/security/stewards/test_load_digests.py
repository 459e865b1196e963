"""Load digests: who states them, who must agree, and what comes of a list that is wrong or contradicted."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from blake3 import blake3

from security.errors import ModelFolderRejected, ModelNotApproved, ModelSignatureRejected
from security.model_signing.algorithms import BLAKE3, SHA256
from security.model_signing.folder import ModelFolder
from security.model_signing.signing import sign_model
from security.stewards.admission import verify_item
from security.stewards.approving import approve_model, promote_model
from security.stewards.envelope import key_id_of, parse_envelope, sign_envelope
from security.stewards.importing import Source, import_model
from security.stewards.load_digests import MAX_LISTED, encode_load_digests, list_digest
from security.stewards.role_file import parse_role_file
from security.stewards.statements import STATEMENT_PAYLOAD_TYPE
from security.stewards.store import Item, ModelStore
from tests.support.controls import control
from tests.support.stewardship import Holder, Stewardship, role_document
from tests.unit.security.stewards.conftest import FILES

WEIGHTS = ("draft/model.safetensors", "model.safetensors")
LISTED = {name: blake3(FILES[name]).hexdigest() for name in WEIGHTS}

Change = Callable[[dict[str, Any]], object]


def restate(item: Item, name: str, people: Stewardship, by: str, change: Change) -> None:
    """Sign a statement that lies beside a model anew, with another predicate."""
    path = item.path / name
    document = json.loads(parse_envelope(path.read_bytes()).payload)
    change(document["predicate"])
    payload = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    path.write_bytes(sign_envelope(STATEMENT_PAYLOAD_TYPE, payload, people.signer(by)))


def restate_approval(item: Item, people: Stewardship, by: str, change: Change) -> None:
    """The approval of a steward, as a tool of theirs could have made it."""
    restate(item, f"approvals/{key_id_of(people.people[by].key.public_key())}.dsse", people, by, change)


def as_before(predicate: dict[str, Any]) -> None:
    """An approval as earlier releases made it."""
    del predicate["load_digests_sha256"]


def digests_in_memory(item: Item, algorithm: str = BLAKE3) -> dict[str, str]:
    """Those that a loader finds: of the weights by one algorithm, of all else by SHA-256."""
    hashers: Mapping[str, Callable[[bytes], Any]] = {BLAKE3: blake3, SHA256: hashlib.sha256}
    return {
        name: hashers[algorithm if name in WEIGHTS else SHA256]((item.files / name).read_bytes()).hexdigest()
        for name in FILES
    }


@control("3.14.1", "SI-7", "SI-7(1)")
def test_weights_are_held_to_what_importer_and_stewards_state(approved: Item, people: Stewardship) -> None:
    """All weights by BLAKE3, all else by the signature's SHA-256; the digest that stands for the model stays the manifest's."""
    admitted = verify_item(approved, people.roles)
    assert admitted.load_digests == LISTED
    assert admitted.root == approved.root
    assert {name: admitted.algorithm_of(name) for name in FILES} == {
        name: BLAKE3 if name in WEIGHTS else SHA256 for name in FILES
    }
    digests = digests_in_memory(approved)
    admitted.verify_loaded(digests, lambda _name: True)
    for name in FILES:
        with pytest.raises(ModelFolderRejected, match=f"{name}: changed: "):
            admitted.verify_loaded(digests | {name: blake3(b"other").hexdigest()}, lambda _name: True)
    with pytest.raises(ModelFolderRejected, match=r"model\.safetensors: changed: BLAKE3"):
        admitted.verify_loaded(digests_in_memory(approved, SHA256), lambda _name: True)
    admitted.without_load_digests().verify_loaded(digests_in_memory(approved, SHA256), lambda _name: True)


def test_a_list_is_named_as_b3sum_and_sha256sum_give_it() -> None:
    """`b3sum FILE… | sha256sum`, in the order of names: anybody can check it without us."""
    lines = "".join(f"{LISTED[name]}  {name}\n" for name in WEIGHTS)
    assert list_digest(dict(reversed(LISTED.items()))) == hashlib.sha256(lines.encode()).hexdigest()


def test_both_digests_are_of_one_reading(
    take: Callable[[], Item], people: Stewardship, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file is opened a second time: nothing can be exchanged between the two digests."""
    item, opened = take(), list[str]()
    open_file = ModelFolder.open_file
    monkeypatch.setattr(ModelFolder, "open_file", lambda self, name: (opened.append(name), open_file(self, name))[1])
    approve_model(item, people.roles, people.signer("ada"))
    assert sorted(opened) == sorted(FILES)


@control("3.4.5", "CM-5(1)")
def test_approval_follows_a_verification_of_every_byte(take: Callable[[], Item], people: Stewardship) -> None:
    """A steward does not sign for files that are not there as the importer signed them."""
    item = take()
    path = item.files / "draft/model.safetensors"
    path.chmod(0o644)
    path.write_bytes(b"draft heaD")
    with pytest.raises(ModelFolderRejected, match=r"draft/model\.safetensors: changed: SHA-256"):
        approve_model(item, people.roles, people.signer("ada"))
    path.write_bytes(FILES["draft/model.safetensors"])
    (item.files / "extra.json").touch()
    with pytest.raises(ModelFolderRejected, match=r"extra\.json: not listed"):
        approve_model(item, people.roles, people.signer("ada"))
    assert item.read_approvals() == []
    (item.files / "extra.json").unlink()
    approved = approve_model(item, people.roles, people.signer("ada"))
    assert (approved.steward.name, approved.load_digests) == ("ada", LISTED)
    assert approved.size_bytes == sum(map(len, FILES.values()))


def test_steward_who_finds_other_digests_does_not_sign(take: Callable[[], Item], people: Stewardship) -> None:
    """The bytes are as signed and their BLAKE3 is not as stated: the importer's machine computes wrongly, or lies."""
    item = take()
    restate(item, "import.dsse", people, "ines", lambda p: p["load_digests"]["blake3"].update({WEIGHTS[1]: "0" * 64}))
    with pytest.raises(
        ModelFolderRejected, match=r"(?s)^model\.safetensors: load digest: .* as ines states.*computes wrongly"
    ):
        approve_model(item, people.roles, people.signer("ada"))
    assert item.read_approvals() == []
    for name in ("ada", "bob"):
        approve_model(item, people.roles, people.signer(name), with_load_digests=False)
    assert verify_item(item, people.roles).load_digests == {}


@control("AC-5", "CM-5(1)")
def test_stewards_who_name_different_lists_are_refused(approved: Item, people: Stewardship, store: ModelStore) -> None:
    """Promotion and start refuse, and say whose approval it is; that steward can approve again."""
    restate_approval(approved, people, "bob", lambda p: p.update(load_digests_sha256="0" * 64))
    with pytest.raises(ModelNotApproved, match="bob approved other load digests than those that the importer states"):
        promote_model(store, approved, people.roles)
    assert store.promoted() == {}
    approve_model(approved, people.roles, people.signer("bob"))
    assert promote_model(store, approved, people.roles).load_digests == LISTED


@pytest.mark.parametrize("named", [7, [], "", "A" * 64])
def test_a_name_that_is_none_is_another(approved: Item, people: Stewardship, named: object) -> None:
    """Whatever stands there and is not the list's digest contradicts it."""
    restate_approval(approved, people, "bob", lambda p: p.update(load_digests_sha256=named))
    with pytest.raises(ModelNotApproved, match="bob approved other load digests"):
        verify_item(approved, people.roles)


def test_approvals_of_before_load_by_the_signature(approved: Item, people: Stewardship) -> None:
    """One or both without load digests: the model is admitted, and held to SHA-256."""
    restate_approval(approved, people, "bob", as_before)
    admitted = verify_item(approved, people.roles)
    assert (admitted.approvers, admitted.load_digests) == (("ada", "bob"), {})
    admitted.verify_loaded(digests_in_memory(approved, SHA256), lambda _name: True)
    restate_approval(approved, people, "ada", as_before)
    assert verify_item(approved, people.roles).load_digests == {}
    for name in ("ada", "bob"):
        approve_model(approved, people.roles, people.signer(name))
    assert verify_item(approved, people.roles).load_digests == LISTED


def test_import_of_before_has_none(take: Callable[[], Item], people: Stewardship) -> None:
    """Stewards compute none where the importer states none, and cannot bring one in by themselves."""
    item = take()
    restate(item, "import.dsse", people, "ines", lambda p: (p.pop("load_digests"), p.pop("files_sha256")))
    for name in ("ada", "bob"):
        assert approve_model(item, people.roles, people.signer(name)).load_digests == {}
    assert verify_item(item, people.roles).load_digests == {}
    for name in ("ada", "bob"):
        restate_approval(item, people, name, lambda p: p.update(load_digests_sha256=list_digest(LISTED)))
    with pytest.raises(ModelNotApproved, match=r"approved other load digests than the importer states \(none\)"):
        verify_item(item, people.roles)


def test_importer_cannot_change_the_list_afterwards(approved: Item, people: Stewardship) -> None:
    """An approval covers the importer's statement."""
    restate(
        approved, "import.dsse", people, "ines", lambda p: p["load_digests"]["blake3"].update({WEIGHTS[1]: "0" * 64})
    )
    with pytest.raises(ModelNotApproved, match="approved by 0 stewards"):
        verify_item(approved, people.roles)


@pytest.mark.parametrize("by", ["olga", "ines", "eve"])
def test_who_cannot_approve_adds_nothing(take: Callable[[], Item], people: Stewardship, by: str) -> None:
    """An operator's, the importer's and a stranger's word neither make a list valid nor contradict one."""
    item = take()
    for name in ("ada", "bob"):
        approve_model(item, people.roles, people.signer(name))
    restate_approval(item, people, "bob", as_before)
    signer = Holder("eve").signer if by == "eve" else people.signer(by)
    payload = json.loads(parse_envelope(item.read_approvals()[0]).payload)
    for digest in (list_digest(LISTED), "0" * 64):
        payload["predicate"]["load_digests_sha256"] = digest
        forged = sign_envelope(STATEMENT_PAYLOAD_TYPE, json.dumps(payload).encode(), signer)
        (item.path / "approvals" / f"{digest[:8]}.dsse").write_bytes(forged)
    assert verify_item(item, people.roles).load_digests == {}


def test_one_steward_with_two_keys_is_one(take: Callable[[], Item], people: Stewardship) -> None:
    """Two approvals by ada name the list, and one by bob does not: one of the two who must agree."""
    item, second_key = take(), Holder("ada")
    document = role_document(
        {
            "ines": (["importer"], [people.people["ines"]]),
            "ada": (["steward"], [people.people["ada"], second_key]),
            "bob": (["steward"], [people.people["bob"]]),
        }
    )
    roles = parse_role_file(json.dumps(document).encode())
    for signer in (people.signer("ada"), second_key.signer):
        approve_model(item, roles, signer)
    approve_model(item, roles, people.signer("bob"), with_load_digests=False)
    assert verify_item(item, roles).load_digests == {}


def test_as_many_must_name_the_list_as_must_approve(take: Callable[[], Item], people: Stewardship) -> None:
    """Where three must approve, two who name it are not enough."""
    item, carl = take(), Holder("carl")
    document = role_document(
        {
            "ines": (["importer"], [people.people["ines"]]),
            **{name: (["steward"], [people.people[name]]) for name in ("ada", "bob")},
            "carl": (["steward"], [carl]),
        }
    )
    roles = parse_role_file(json.dumps(document | {"approvals_required": 3}).encode())
    for name in ("ada", "bob"):
        approve_model(item, roles, people.signer(name))
    approve_model(item, roles, carl.signer, with_load_digests=False)
    assert verify_item(item, roles).load_digests == {}
    approve_model(item, roles, carl.signer)
    assert verify_item(item, roles).load_digests == LISTED


BAD_LISTS: dict[str, tuple[Change, str]] = {
    "missing": (lambda p: p["load_digests"]["blake3"].pop(WEIGHTS[0]), r"draft/model\.safetensors: missing"),
    "empty": (lambda p: p["load_digests"]["blake3"].clear(), "missing"),
    "extra": (
        lambda p: p["load_digests"]["blake3"].update({"x.safetensors": "0" * 64}),
        r"x\.safetensors: listed, and not",
    ),
    "small": (
        lambda p: p["load_digests"]["blake3"].update({"config.json": "0" * 64}),
        r"config\.json: listed, and not",
    ),
    "short": (lambda p: p["load_digests"]["blake3"].update({WEIGHTS[0]: "00"}), "expected 64 hexadecimal digits"),
    "upper": (lambda p: p["load_digests"]["blake3"].update({WEIGHTS[0]: "A" * 64}), "expected 64 hexadecimal digits"),
    "number": (lambda p: p["load_digests"]["blake3"].update({WEIGHTS[0]: 7}), "expected 64 hexadecimal digits"),
    "other": (lambda p: p.update(load_digests={"md5": {}}), "expected an object with digests by blake3"),
    "two": (lambda p: p["load_digests"].update(md5={}), "expected an object with digests by blake3"),
    "null": (lambda p: p.update(load_digests=None), "expected an object with digests by blake3"),
}


@pytest.mark.parametrize("what", BAD_LISTS)
def test_list_that_is_not_of_exactly_the_weights_is_refused(
    what: str, take: Callable[[], Item], people: Stewardship
) -> None:
    """By stewards, and at a start even if stewards approved it by hand."""
    item, (change, message) = take(), BAD_LISTS[what]
    for name in ("ada", "bob"):
        approve_model(item, people.roles, people.signer(name))
    restate(item, "import.dsse", people, "ines", change)
    envelope = hashlib.sha256((item.path / "import.dsse").read_bytes()).hexdigest()
    for name in ("ada", "bob"):
        restate_approval(item, people, name, lambda p: p.update(import_sha256=envelope))
    with pytest.raises(ModelSignatureRejected, match=message):
        verify_item(item, people.roles)
    with pytest.raises(ModelSignatureRejected, match=message):
        approve_model(item, people.roles, people.signer("ada"))


def test_signature_by_blake3_needs_no_list(source: Source, store: ModelStore, people: Stewardship) -> None:
    """Its own digests are of a tree; a list beside them is refused, as it could contradict them."""
    item = import_model(replace(source, algorithm=BLAKE3), store, people.roles, people.signer("ines"), ()).item
    for name in ("ada", "bob"):
        approve_model(item, people.roles, people.signer(name))
    admitted = verify_item(item, people.roles)
    assert (admitted.load_digests, admitted.weights_algorithm) == ({}, BLAKE3)
    restate(item, "import.dsse", people, "ines", lambda p: p.update(load_digests={"blake3": LISTED}))
    with pytest.raises(ModelSignatureRejected, match="expected none beside a signature with BLAKE3"):
        verify_item(item, people.roles)


def test_import_without_load_digests_states_none(source: Source, store: ModelStore, people: Stewardship) -> None:
    """For hosts where no algorithm but the signature's may be used."""
    plain = replace(source, with_load_digests=False)
    imported = import_model(plain, store, people.roles, people.signer("ines"), ())
    assert imported.load_digests == {}
    assert b'"load_digests"' not in parse_envelope((imported.item.path / "import.dsse").read_bytes()).payload


def test_lists_are_bounded() -> None:
    """What nobody could read back is not written; the message has the remedy."""
    with pytest.raises(ModelFolderRejected, match="--digest blake3"):
        encode_load_digests({f"{number}.safetensors": "0" * 64 for number in range(MAX_LISTED + 1)})


@control("SI-7", "CM-5(1)")
def test_importer_cannot_rename_files_afterwards(approved: Item, people: Stewardship) -> None:
    """The root is over digests and not over names: the same bytes, signed anew, with a licence that has become a template."""
    (approved.files / "chat_template.jinja").rename(approved.files / "chat_template.json")
    approved.signature.unlink()
    signed = sign_model(approved.files, people.signer("ines"), approved.signature)
    assert signed.manifest.root == approved.root
    with pytest.raises(ModelSignatureRejected, match="other names than those that the importer stated"):
        verify_item(approved, people.roles)
    with pytest.raises(ModelSignatureRejected, match="other names than those that the importer stated"):
        approve_model(approved, people.roles, people.signer("ada"))
