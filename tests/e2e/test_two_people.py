"""Retention, a hold and the log's rotation, set by an auditor and an administrator who sign in: each alone changes nothing."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from audit.fsck import verify_log
from audit.index import LogIndex, Query
from audit.rotation import load_predecessor
from audit.signing_key import load_verifier_key
from tests.support.appliance import Appliance, running_appliance
from tests.support.commands import run_casemate, try_casemate
from tests.support.controls import control
from tests.support.people import Person, make_application

SCOPE = "audit.govern"


class Decider:
    """A person, and their token in a file, as `casemate audit` takes it."""

    def __init__(self, appliance: Appliance, client_id: str, login: str, role: str) -> None:
        self.appliance = appliance
        self.client_id = client_id
        self.person = Person(appliance, login, role)
        self.token_file = appliance.directory / f"{login}.token"
        self.sign_in()

    def sign_in(self) -> None:
        self.token_file.write_text(self.person.sign_in(self.client_id, SCOPE))

    def ask(self, *words: str) -> tuple[int, str]:
        options = [
            "--url", self.appliance.url, "--token-file", str(self.token_file), "--ca", str(self.appliance.ca_file),
        ]  # fmt: skip
        return try_casemate("audit", *words, *options)

    def propose(self, *words: str) -> str:
        """The proposal's id."""
        status, said = self.ask(*words, "--reason", "because")
        assert status == 0, said
        return said.split()[1]

    def rules(self) -> Any:
        status, said = self.ask("rules")
        assert status == 0, said
        return json.loads(said)


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """One of our own: it is stopped, and its log closed."""
    with running_appliance(tmp_path_factory.mktemp("two")) as running:
        yield running


def records(appliance: Appliance, place: Path, kind: str) -> list[Any]:
    log = appliance.state / "audit"
    index = LogIndex(place / "index.sqlite", log / "log", load_verifier_key(str(log / "log.vkey")))
    try:
        index.update()
        return [json.loads(entry) for entry in index.read(index.find(Query(kind=kind)))]
    finally:
        index.close()


@control("AU-9(5)", "AU-9(4)", "3.3.9", "AC-3(2)", "AC-5", "3.1.4")
def test_two_people_of_two_roles_set_the_rules_and_neither_alone(appliance: Appliance, tmp_path: Path) -> None:
    """Refused to who proposed, to the same role, and to the same person in the other role; in force when the other confirms."""
    application = make_application(appliance)
    ada = Decider(appliance, application, "ada", "auditor")
    zoe = Decider(appliance, application, "zoe", "auditor")
    rudi = Decider(appliance, application, "rudi", "admin")

    change = ada.propose("retention", "90")
    hold = rudi.propose("hold", "--from", "2026-11-01", "--to", "2026-11-30", "--tenant", "acme")
    for alone in (ada, zoe):
        status, said = alone.ask("confirm", change)
        assert status != 0
        assert "confirmed by an administrator" in said
    assert "confirmed by an auditor" in rudi.ask("confirm", hold)[1]
    waiting = ada.rules()
    assert (waiting["retention_days"], waiting["holds"]) == (30, [])

    run_casemate("role", "grant", "ada", "admin", "--config", str(appliance.config_file))
    time.sleep(1.1)  # Tokens of the second in which the role was changed are void.
    ada.sign_in()
    status, said = ada.ask("confirm", change)
    assert status != 0
    assert "another person" in said
    assert zoe.rules()["retention_days"] == 30

    assert rudi.ask("confirm", change)[0] == 0
    assert zoe.ask("confirm", hold)[0] == 0
    assert rudi.ask("confirm", zoe.propose("agree-rotation"))[0] == 0
    rules = zoe.rules()
    assert rules["retention_days"] == 90
    assert [one["tenant"] for one in rules["holds"]] == ["acme"]

    refuse_program(appliance)
    assert appliance.stop() == 0
    people = {one.person.user_id: one for one in (ada, zoe, rudi)}
    (changed,) = records(appliance, tmp_path, "retention_changed")
    assert changed["entity"]["data"] == {"retention_days": 30}
    assert changed["unmapped"]["casemate"]["approvers"] == [ada.person.user_id, rudi.person.user_id]
    (placed,) = records(appliance, tmp_path, "hold_placed")
    assert placed["unmapped"]["casemate"]["approvers"] == [rudi.person.user_id, zoe.person.user_id]
    signed_in = [one["user"]["uid"] for one in records(appliance, tmp_path, "user_signed_in")]
    assert set(signed_in) == set(people)
    rotate(appliance, rules["rotation_index"])


def refuse_program(appliance: Appliance) -> None:
    """The role and the scope do not suffice: whoever decides has signed in."""
    token_file = appliance.directory / "robot.token"
    token_file.write_text(appliance.token(appliance.create_client("robot", "--role", "auditor")))
    options = ["--url", appliance.url, "--token-file", str(token_file), "--ca", str(appliance.ca_file)]
    status, said = try_casemate("audit", "retention", "7", "--reason", "because", *options)
    assert status != 0
    assert "who signed in" in said


def rotate(appliance: Appliance, index: int) -> None:
    """What both agreed to: the log is closed by the record that says so, and stands aside, whole."""
    folder = appliance.state / "audit"
    key = load_verifier_key(str(folder / "log.vkey"))
    run_casemate("audit", "rotate-log", "--dir", str(folder / "log"))
    predecessor = load_predecessor(folder / "log")
    assert predecessor is not None
    assert predecessor.checkpoint.size > index
    (old,) = (path for path in folder.iterdir() if path.name.startswith("log-") and path.is_dir())
    assert verify_log(old, key).checkpoint == predecessor.checkpoint
