"""`casemate client` as an administrator uses it."""

import json

import pytest

from appliance.cli.main import EXIT_FAILED, EXIT_MISCONFIGURED, EXIT_OK, main
from appliance.policy.locations import CREDENTIALS_FILE, DATABASE_FILE, load_credentials_key
from tests.support.definitions import Registry


@pytest.fixture
def state(tmp_path):
    return tmp_path / "a state" / "dir"


def run(state, *words):
    return main(["client", words[0], "--state", str(state), *words[1:]])


def create(state, capsys, *words):
    assert run(state, "create", *words, "--json") == EXIT_OK
    return json.loads(capsys.readouterr().out)


def test_create_prints_a_secret_that_works_and_stores_it_nowhere(state, capsys):
    """In JSON, all on standard output."""
    made = create(
        state, capsys, "My App", "--tenant", "acme", "--scopes", "inference,models.read", "--models", "a, b,a"
    )
    assert (made["name"], made["role"], made["tenant"], made["models"]) == ("My App", "user", "acme", ["a", "b"])
    assert made["scopes"] == "inference models.read"
    registry = Registry(state / DATABASE_FILE, key=load_credentials_key(state))
    assert registry.authenticate(made["client_id"], made["client_secret"]).client_id == made["client_id"]
    assert [change.action for change in registry.changes()] == ["client_created"]
    registry.close()


def test_bytes_that_are_no_text_are_an_error_not_a_crash(state, capsys):
    """What a shell may hand over as a name."""
    create(state, capsys, "app")
    for words in (
        ("disable", "\udcff"),
        ("models", "\udcff"),
        ("create", "x", "--auth", "tls_client_auth", "--tls-subject", "\udcff"),
    ):
        assert run(state, *words) == EXIT_FAILED
        assert "Traceback" not in capsys.readouterr().err


def test_create_for_people(state, capsys):
    """Two lines to copy; the warning is on standard error, out of a pipe's way."""
    assert run(state, "create", "demo") == EXIT_OK
    shown = capsys.readouterr()
    lines = dict(line.split(": ", 1) for line in shown.out.splitlines())
    assert lines.keys() == {"client_id", "client_secret"}
    assert "not shown again" in shown.err


def test_list_disable_rotate(state, capsys):
    """A secret is shown when it is made, and never by the list."""
    made = create(state, capsys, "demo")
    assert run(state, "rotate", made["client_id"], "--json") == EXIT_OK
    rotated = json.loads(capsys.readouterr().out)
    assert rotated["client_secret"] not in ("", made["client_secret"])
    assert run(state, "disable", made["client_id"]) == EXIT_OK
    capsys.readouterr()
    assert run(state, "list", "--json") == EXIT_OK
    (listed,) = json.loads(capsys.readouterr().out)
    assert listed["disabled_at"] is not None
    assert "client_secret" not in listed
    assert run(state, "list") == EXIT_OK
    table = capsys.readouterr().out
    assert made["client_id"] in table
    assert "disabled" in table
    assert "cms-" not in table


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["create", "bad\nname"], "name"),
        (["create", "x", "--role", "root"], "role 'root' does not exist"),
        (["create", "x", "--scopes", "everything"], "scope 'everything' does not exist"),
        (["create", "x", "--scopes", ""], "scope"),
        (["create", "x", "--role", "operator", "--scopes", "inference"], "may not have scope inference"),
        (["create", "x", "--tenant", "No Tenant"], "tenant"),
        (["create", "x", "--models", "a b"], "model"),
    ],
)
def test_what_makes_no_sense_is_one_clear_line(state, capsys, words, match):
    """Exit code 1, and nothing was made."""
    assert run(state, *words) == EXIT_FAILED
    shown = capsys.readouterr()
    assert shown.out == ""
    assert match in shown.err
    assert len(shown.err.splitlines()) == 1
    assert not state.exists()


def test_unknown_clients_and_empty_states(state, capsys):
    """A mistyped directory is not quietly made into a registry."""
    for words in (["list"], ["disable", "x"], ["rotate", "x"]):
        assert run(state, *words) == EXIT_FAILED
        assert "has no definitions" in capsys.readouterr().err
    assert not state.exists()
    create(state, capsys, "demo")
    assert run(state, "disable", "nobody") == EXIT_FAILED
    assert "'nobody' does not exist" in capsys.readouterr().err


def test_without_a_place_it_asks_for_one(tmp_path, monkeypatch, capsys):
    """Never a guess at which appliance was meant."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CASEMATE_CONFIG", raising=False)
    assert main(["client", "list"]) == EXIT_FAILED
    assert "--state DIR or --config FILE" in capsys.readouterr().err


def test_an_exposed_key_file_refuses(state, capsys):
    """Named, with the code for a misconfiguration."""
    create(state, capsys, "demo")
    (state / CREDENTIALS_FILE).chmod(0o644)
    assert run(state, "create", "other") == EXIT_MISCONFIGURED
    assert "credentials.key is open to others" in capsys.readouterr().err
