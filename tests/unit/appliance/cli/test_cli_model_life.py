"""`casemate init`, `trust` and `model import|approve|promote|retire|list|show`: the way of the documentation, by command."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from blake3 import blake3

from appliance.cli.main import EXIT_FAILED, EXIT_MISCONFIGURED, EXIT_OK, main
from appliance.config.defaults import DEMO_MODEL_DIR
from appliance.models.places import open_outbox
from appliance.supervisor.notices import encode_notice
from audit.entry import parse_canonical
from security.errors import KeyUnusable
from security.stewards.load_digests import list_digest
from security.stewards.outbox import Outbox
from tests.support.controls import control
from tests.support.stewardship import Holder, Stewardship

LISTED = {"model.safetensors": blake3((DEMO_MODEL_DIR / "model.safetensors").read_bytes()).hexdigest()}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with everybody's keys and a host that believes them, which is the working directory."""
    people = Stewardship()
    people.establish(tmp_path / "state")
    for holder in people.people.values():
        holder.write(tmp_path / "keys")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """One command that works; gives what it printed."""
    assert main(list(words)) == EXIT_OK, capsys.readouterr().err
    return capsys.readouterr().out


def take(capsys: pytest.CaptureFixture[str]) -> str:
    """Import the demo model; gives its digest."""
    words = ("--name", "tiny", "--key", "keys/ines.pem", "--licence", "Apache-2.0", "--origin", "made here", "--json")
    return str(json.loads(run(capsys, "model", "import", str(DEMO_MODEL_DIR), *words))["root"])


@control("A.6.2.8")
def test_import_approve_promote_retire(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each step says what is next, and leaves a notice for the log."""
    root = take(capsys)
    approved = run(capsys, "model", "approve", root[:12], "--key", "keys/ada.pem")
    assert "1 of 2 approvals" in approved
    assert "all files as signed" in approved
    assert main(["model", "promote", root[:12]]) == EXIT_FAILED
    assert "approved by 1 stewards other than the importer (ada), expected 2" in capsys.readouterr().err
    run(capsys, "model", "approve", root[:12], "--key", "keys/bob.pem")
    promoted = run(capsys, "model", "promote", root[:12])
    assert f'model_path = "{place}/state/models/promoted/tiny"' in promoted
    run(capsys, "model", "promote", root[:12])
    assert "promoted    tiny" in run(capsys, "model", "list")
    shown = json.loads(run(capsys, "model", "show", root, "--json"))
    assert (shown["imported_by"], shown["approved_by"], shown["origin"]) == ("ines", ["ada", "bob"], "made here")
    assert shown["load_digests"] == f"sha256:{list_digest(LISTED)}"
    run(capsys, "model", "retire", root[:12], "--key", "keys/ada.pem", "--reason", "superseded")
    assert "retired     tiny" in run(capsys, "model", "list")
    notices = [notice for _, notice in open_outbox(place / "state").waiting()]
    kinds = [notice.kind for notice in notices]
    promotions = ["model_promoted"] * 2
    assert kinds == ["model_imported", "model_approved", "model_approved", *promotions, "model_retired"]
    told = [notice.facts.get("load_digests") for notice in notices]
    assert told == [shown["load_digests"]] * 5 + [None]
    before = [notice.facts["previous"] for notice in notices if notice.kind == "model_promoted"]
    assert before == ["none", f"sha256:{root}"]


@control("AU-5")
def test_nothing_takes_effect_before_its_notice_is_left(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step where no notice can be left: it is refused, and nothing is as if it had been done."""

    def refuse(*words: str) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(Outbox, "put", fail)
            assert main(list(words)) != EXIT_OK
        return capsys.readouterr().err

    def fail(_self: Outbox, kind: str, **_given: object) -> None:
        raise KeyUnusable(f"no space for {kind}")

    models, roles = place / "state" / "models", place / "state" / "trust" / "roles.dsse"
    take_in = ("model", "import", str(DEMO_MODEL_DIR), "--name", "tiny", "--key", "keys/ines.pem", "--licence", "MIT")
    assert "no space for model_imported" in refuse(*take_in)
    assert run(capsys, "model", "list").startswith("There are no models")
    assert not list(models.glob("incoming-*"))
    root = take(capsys)
    approve = ("model", "approve", root, "--key")
    assert "no space for model_approved" in refuse(*approve, "keys/ada.pem")
    assert json.loads(run(capsys, "model", "show", root, "--json"))["approved_by"] == []
    for name in ("ada", "bob"):
        run(capsys, *approve, f"keys/{name}.pem")
    assert "no space for model_promoted" in refuse("model", "promote", root)
    assert json.loads(run(capsys, "model", "show", root, "--json"))["state"] == "quarantine"
    run(capsys, "model", "promote", root)
    assert "no space for model_retired" in refuse("model", "retire", root, "--key", "keys/ada.pem", "--reason", "old")
    assert json.loads(run(capsys, "model", "show", root, "--json"))["state"] == "promoted"
    before = roles.read_bytes()
    (place / "roles").write_bytes(before)
    assert "no space for roles_installed" in refuse("trust", "install-roles", "roles")
    assert roles.read_bytes() == before


@pytest.mark.parametrize("where", ["option", "configuration"])
def test_no_other_algorithm_is_computed_where_none_may_be(
    where: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By option, or as the configuration says `fips = true`; of a model that has load digests an approval names none then."""
    (place / "fips.toml").write_text(
        f'fips = true\nstate_dir = "state"\n[[engines]]\nmodel_path = "{DEMO_MODEL_DIR}"\n'
    )
    without = ("--no-load-digests",) if where == "option" else ("--config", "fips.toml")
    root = take(capsys)
    for name in ("ada", "bob"):
        words = ("model", "approve", root, "--key", f"keys/{name}.pem", "--json", *without)
        assert json.loads(run(capsys, *words))["load_digests"] == "none"
    assert json.loads(run(capsys, "model", "promote", root, "--json"))["load_digests"] == "none"
    words = ("--name", "other", "--key", "keys/ines.pem", "--licence", "another", "--json", *without)
    shutil.rmtree(place / "state/models")
    assert json.loads(run(capsys, "model", "import", str(DEMO_MODEL_DIR), *words))["load_digests"] == "none"


def test_list_can_be_had_without_us(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`show` tells what an auditor compares: the list of `b3sum`, by its SHA-256."""
    root = take(capsys)
    assert json.loads(run(capsys, "model", "show", root, "--json"))["load_digests"] == "none"
    for name in ("ada", "bob"):
        run(capsys, "model", "approve", root, "--key", f"keys/{name}.pem")
    lines = f"{LISTED['model.safetensors']}  model.safetensors\n"
    assert f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}" in run(capsys, "model", "show", root)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root meets somebody else's state")
def test_root_is_sent_away_from_somebody_elses_state(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model that root imported could not be read by the user that serves."""
    os.chown(place / "state", 65534, 65534)
    assert main(["model", "list"]) == EXIT_FAILED
    assert "belongs to uid 65534: run this as that user" in capsys.readouterr().err


def test_refused_import_is_noted(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was refused, and why, goes to the log as well."""
    folder = Path(shutil.copytree(DEMO_MODEL_DIR, place / "bad"))
    (folder / "run.py").touch()
    assert main(["model", "import", "bad", "--key", "keys/ines.pem", "--licence", "x"]) == EXIT_FAILED
    assert "run.py" in capsys.readouterr().err
    ((_, notice),) = open_outbox(place / "state").waiting()
    assert notice.kind == "model_import_refused"
    assert "run.py" in str(notice.facts["reason"])


def test_truss_is_imported_from_its_data_folder(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Name and description come from `config.yaml`."""
    shutil.copytree(DEMO_MODEL_DIR, place / "truss" / "data")
    config = place / "truss" / "config.yaml"
    config.write_text("model_name: small-one\ndescription: a truss\n")
    words = ("model", "import", "truss", "--key", "keys/ines.pem", "--licence", "x", "--json")
    imported = json.loads(run(capsys, *words))
    assert (imported["name"], imported["origin"]) == ("small-one", "Truss: a truss")
    config.write_text("build_commands: [make]\n")
    assert main(list(words)) == EXIT_FAILED
    assert "build_commands" in capsys.readouterr().err
    (_, notice) = list(open_outbox(place / "state").waiting())[-1]
    assert (notice.kind, notice.name) == ("model_import_refused", "truss")
    assert "build_commands" in str(notice.facts["reason"])


def test_roots_and_role_files_are_made_by_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From two keys to a host that believes a role file: nothing but the commands of the documentation."""
    monkeypatch.chdir(tmp_path)
    one, two = Holder("one"), Holder("two")
    for holder in (one, two):
        holder.write(tmp_path)
    words = ("--root-key", "one.pub", "--root-key", "two.pub", "--root-threshold", "2", "-o", "root.json")
    run(capsys, "trust", "make-root", *words)
    assert "more signatures are needed" in run(capsys, "trust", "sign-root", "root.json", "--key", "one.pem")
    signed = run(capsys, "trust", "sign-root", "root.json", "--key", "two.pem")
    digest = hashlib.sha256((tmp_path / "root.json").read_bytes()).hexdigest()
    assert digest in signed
    (tmp_path / "roles.json").write_text(json.dumps(Stewardship().document()))
    half = run(
        capsys, "trust", "sign-roles", "roles.json", "--key", "one.pem", "--root", "root.json", "-o", "half.dsse"
    )
    assert "incomplete has 1 of 2 signatures" in half
    init = ["init", "--customer-root", "root.json", "--customer-root-sha256", digest, "--roles"]
    assert main([*init, "half.dsse"]) == EXIT_MISCONFIGURED
    assert "signed by 1 of the keys in the newest customer root" in capsys.readouterr().err
    Holder("mallory").write(tmp_path)
    words = ("trust", "sign-roles", "half.dsse", "--key", "mallory.pem", "--root", "root.json", "-o", "roles.dsse")
    assert main(list(words)) == EXIT_FAILED
    assert "mallory.pem: is no key of root.json" in capsys.readouterr().err
    whole = run(
        capsys, "trust", "sign-roles", "half.dsse", "--key", "two.pem", "--root", "root.json", "-o", "roles.dsse"
    )
    assert "complete   has 2 signatures, 2 are needed" in whole
    assert "in force   role file version 1" in run(capsys, *init, "roles.dsse")
    believed = [notice for _, notice in open_outbox(Path("state")).waiting() if notice.kind == "key_rotated"]
    assert {(notice.name, notice.digest) for notice in believed} == {("customer root", f"sha256:{digest}")}
    event = parse_canonical(encode_notice(believed[-1]) or b"")
    assert event["updated_entity"]["data"] == {"key_id": f"sha256:{digest}", "stage": "believed"}
    (tmp_path / "next.json").write_text(json.dumps(Stewardship().document(2)))
    unsure = run(capsys, "trust", "sign-roles", "next.json", "--key", "one.pem", "-o", "a.dsse")
    assert "has 1 signature; whether more are needed is said by the customer's root" in unsure
    run(capsys, "trust", "sign-roles", "a.dsse", "--key", "two.pem", "-o", "b.dsse")
    assert "version 2" in run(capsys, "trust", "install-roles", "b.dsse")
    installed = [notice for _, notice in open_outbox(Path("state")).waiting() if notice.kind == "roles_installed"]
    first, second = (
        f"sha256:{hashlib.sha256(Path(name).read_bytes()).hexdigest()}" for name in ("roles.dsse", "b.dsse")
    )
    assert [(one.digest, one.facts["previous"]) for one in installed] == [(first, "none"), (second, first)]


def test_model_is_imported_from_a_customers_bundle(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Under the customer's own root; the record says which bundle. The same bundle is no software."""
    people = Stewardship()
    people.establish(place / "own")
    for holder in (people.root_holder, *people.people.values()):
        holder.write(place / "own-keys")
    (place / "root.json").write_bytes((place / "own/trust/customer/root.json").read_bytes())
    words = ("--owner", "customer", "--root", "root.json", "--release", "2026.11.25", "--key", "own-keys/root.pem")
    run(capsys, "bundle", "build", "bundle", *words, "--component", f"tiny={DEMO_MODEL_DIR}")
    host = ("--host", "host", "--state", "own")
    assert main(["bundle", "install", "bundle", *host]) != EXIT_OK
    capsys.readouterr()
    take = ("model", "import", "bundle", "--state", "own", "--key", "own-keys/ines.pem", "--licence", "x", "--json")
    assert main([*take, "--component", "other"]) == EXIT_FAILED
    assert "no component 'other'; it has tiny" in capsys.readouterr().err
    imported = json.loads(run(capsys, *take, "--component", "tiny"))
    assert imported["name"] == "tiny"
    assert imported["origin"].startswith("bundle customer 2026.11.25 sha256:")
    assert not list((place / "own/models").glob("unpacked-*"))
    (weights,) = (place / "bundle").rglob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    assert main([*take, "--component", "tiny", "--name", "altered"]) == EXIT_FAILED
    assert "other bytes than those signed" in capsys.readouterr().err
    (_, notice) = list(open_outbox(place / "own").waiting())[-1]
    assert (notice.kind, notice.name) == ("model_import_refused", "altered")


@pytest.mark.parametrize(
    "words",
    [
        ["init"],
        ["init", "--root", "root.json"],
        ["init", "--customer-root-sha256", "00"],
        ["init", "--root", "root.json", "--root-sha256", "00", "--roles", "roles.dsse"],
        ["model", "import", "x", "--key", "keys/ines.pem", "--vendor-signature", "y"],
        ["model", "import", "x", "--key", "keys/ines.pem", "--vendor-key", "y"],
    ],
)
def test_halves_of_a_pair_are_refused(place: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A root without a digest is believed by nobody; a signature without a key says nothing."""
    assert main(words) == EXIT_FAILED
    assert capsys.readouterr().err.startswith("casemate: ")
