"""What is told of an installation: facts by the configuration and the definitions, lists without secrets."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from appliance.compliance.answers import answer_all
from appliance.compliance.gathering import gather_installation
from appliance.compliance.inventory import list_people, list_programs, list_roles, list_static_keys
from appliance.compliance.key_files import list_keys
from appliance.compliance.witnesses import find_cosigned
from appliance.config import Configuration, parse_configuration
from appliance.config.showing import HIDDEN, hide_secrets
from appliance.console.identity import CLIENT_KEY
from appliance.policy.locations import DATABASE_FILE
from appliance.statement.measuring import measure_software
from audit.append import LogWriter
from audit.cosignature import Cosigner
from audit.entry import complete_entry
from audit.events import host_event
from audit.keyed_hash import root_context
from audit.note import SignedNote, encode_note, parse_note
from audit.shares import SHARES, ShareStore
from compliance.facts import QUESTIONS, Answer
from compliance.period import format_time
from security.clients import ClientDefinition
from security.registry.snapshot import read_definitions
from security.scopes import Role
from security.users import UserDefinition
from tests.support.controls import control
from tests.support.definitions import Registry

NOW = 1_800_000_000
MODEL = '[[engines]]\nmodel_path = "models/m"\n'
GOOD = """
mode = "development"
[authority]
banner = "Only for those who may."
[policy]
two_person_grants = true
[segments]
clients = ["10.0.0.0/8"]
probes = ["192.0.2.1:443"]
"""


CONSOLE = "[administration]\nenabled = true\n[console]\nenabled = true\n"


def at_server(url: str) -> str:
    """The same, with the definitions in a database server, which has its arrow."""
    text = GOOD.replace("[policy]", f'[policy]\ndatabase_url = "{url}"')
    return text.replace("[segments]", '[segments]\ndatabases = ["192.0.2.7:5432"]')


FROM_THE_LOG = {"records_present", "records_retained"}


def configure(text: str, folder: Path) -> Configuration:
    """A configuration with its state below a folder."""
    return parse_configuration((f'state_dir = "{folder}/state"\n' + text + MODEL).encode(), folder)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Definitions where the configuration has them."""
    return Registry(tmp_path / "state" / DATABASE_FILE, clock=lambda: NOW)


def answers(configuration: Configuration, registry: Registry | None = None) -> dict[str, Answer]:
    """As they are now."""
    definitions = None if registry is None else read_definitions(registry.database)
    return answer_all(configuration, definitions, "sha256:aa", NOW, b"")


def test_every_question_is_answered(tmp_path: Path) -> None:
    """But for those that the log answers; with words each."""
    found = answers(configure("", tmp_path))
    assert set(found) == set(QUESTIONS) - FROM_THE_LOG
    assert all(answer.words for answer in found.values())


@pytest.mark.parametrize(
    ("fact", "text", "other"),
    [
        ("two_person_grants", GOOD, GOOD.replace("two_person_grants = true", "")),
        ("banner", GOOD, GOOD.replace('banner = "Only for those who may."', "")),
        ("segments", GOOD, GOOD.replace('clients = ["10.0.0.0/8"]', "")),
        ("egress_probes", GOOD, GOOD.replace('probes = ["192.0.2.1:443"]', "")),
        ("tls_1_3", GOOD, GOOD + '[tls]\nminimum_version = "1.2"\n'),
        ("lockout", GOOD, GOOD.replace("[authority]", "[authority]\nmax_sign_in_failures = 6")),
        ("lockout", GOOD, GOOD.replace("[authority]", "[authority]\nlockout_s = 899")),
        ("idle_sessions", GOOD, GOOD.replace("[authority]", "[authority]\npage_idle_s = 901")),
        ("idle_sessions", GOOD + CONSOLE + "idle_s = 900\n", GOOD + CONSOLE + "idle_s = 901\n"),
        ("session_lifetime", GOOD, GOOD.replace("[authority]", "[authority]\nsession_lifetime_s = 43201")),
        ("session_lifetime", GOOD + CONSOLE, GOOD + CONSOLE + "session_lifetime_s = 43201\n"),
        ("concurrency_bounded", GOOD, GOOD.replace("[policy]", "[policy]\nmax_concurrent_requests_per_client = 0")),
        ("token_key_rotates", GOOD, GOOD.replace("[authority]", "[authority]\nsigning_key_lifetime_days = 0")),
        ("inactive_accounts", GOOD, GOOD.replace("[authority]", "[authority]\ninactive_after_days = 0")),
        ("inactive_accounts", GOOD, GOOD.replace("[authority]", "[authority]\ninactive_after_days = 91")),
        ("retention_half_year", GOOD, GOOD + "[compliance]\nretention_days = 183\n"),
        ("frozen_kernels", GOOD, GOOD.replace("[authority]", "[authority]")),
        (
            "database_tls",
            at_server("postgresql://u:p@192.0.2.7/c?sslmode=verify-full"),
            at_server("postgresql://u:p@192.0.2.7/c"),
        ),
        (
            "database_tls",
            at_server("postgresql:///c?host=/run/postgresql") + "[confinement]\nenabled = false\n",
            at_server("postgresql:///c?hostaddr=192.0.2.7&sslmode=require"),
        ),
        ("confinement", GOOD, GOOD + "[confinement]\nenabled = false\n"),
        ("own_users", GOOD, GOOD + "[confinement]\nenabled = false\n"),
    ],
)
def test_a_fact_follows_its_key(tmp_path: Path, fact: str, text: str, other: str) -> None:
    """It holds, and with one key changed it does not."""
    if fact not in ("confinement", "own_users"):  # Whether the system offers all of it is the system's.
        assert answers(configure(text, tmp_path))[fact].holds is True
    changed = configure(other, tmp_path)
    if fact == "frozen_kernels":
        engine = msgspec.structs.replace(changed.engines[0], device="cuda")
        changed = msgspec.structs.replace(changed, engines=(engine,))
    assert answers(changed)[fact].holds is False


class Witnessed:
    """A log with a witness whose word can be put beside it."""

    def __init__(self, home: Path) -> None:
        self.audit = home / "state" / "audit"
        self.writer = LogWriter(self.audit / "log", self.audit / "log.key", origin="log.example/x")
        self.cosigner = Cosigner("witness.example/w", Ed25519PrivateKey.generate())
        self.configuration = configure(f'[audit]\nwitnesses = ["{self.cosigner.key.encode()}"]\n', home)

    def append(self, number: int) -> None:
        """Records, published."""
        size = self.writer.size
        assert self.writer.append([b"{}"] * number) == size
        self.writer.commit()
        self.writer.publish()

    def speak(self, at: int, cosigner: Cosigner | None = None) -> None:
        """The witness cosigns what is published."""
        note = parse_note((self.audit / "log" / "checkpoint").read_bytes())
        signature = (cosigner or self.cosigner).cosign(note.text, at)
        (self.audit / "cosigned").write_bytes(encode_note(SignedNote(note.text, (*note.signatures, signature))))

    @property
    def answer(self) -> Answer:
        """By now."""
        return answer_all(self.configuration, None, "", NOW, find_cosigned(self.configuration))["witness"]


@pytest.fixture
def witnessed(tmp_path: Path) -> Iterator[Witnessed]:
    """With ten records."""
    made = Witnessed(tmp_path)
    made.append(10)
    yield made
    made.writer.close()


def test_a_witness_counts_when_it_has_spoken(tmp_path: Path, witnessed: Witnessed) -> None:
    """Named is not enough; a word counts also for what came behind it."""
    assert answers(configure("", tmp_path))["witness"] == Answer(False, "audit.witnesses names none")
    assert witnessed.answer.holds is False
    witnessed.speak(NOW - 60)
    assert witnessed.answer == Answer(
        True, f"1 of 1 witnesses cosigned the first 10 records, at {format_time(int(NOW - 60) * 1000)}"
    )
    witnessed.append(5)
    assert witnessed.answer.holds is True


def test_a_witness_with_two_keys_is_one(tmp_path: Path, witnessed: Witnessed) -> None:
    """As of Ed25519 and ML-DSA-44: it has one voice."""
    other = Cosigner(witnessed.cosigner.key.name, Ed25519PrivateKey.generate())
    both = configure(f'[audit]\nwitnesses = ["{witnessed.cosigner.key.encode()}", "{other.key.encode()}"]\n', tmp_path)
    said = answer_all(both, None, "", NOW, b"")["witness"]
    assert said == Answer(False, "audit.witnesses names 1, and no word of theirs lies beside the log")


def test_a_word_that_is_old_a_strangers_or_of_another_log_counts_for_nothing(witnessed: Witnessed) -> None:
    """Each says why."""
    witnessed.speak(NOW - 86_401)
    assert (witnessed.answer.holds, "86,401 s ago" in witnessed.answer.words) == (False, True)
    witnessed.speak(NOW + 86_400)
    assert (witnessed.answer.holds, "a time that has not come" in witnessed.answer.words) == (False, True)
    witnessed.speak(NOW, Cosigner("witness.example/w", Ed25519PrivateKey.generate()))
    assert witnessed.answer == Answer(False, "0 witnesses have cosigned, 1 are asked for")
    witnessed.speak(NOW)
    tile = witnessed.audit / "log" / "tile" / "0" / "000.p" / "10"
    tile.write_bytes(bytes(len(tile.read_bytes())))
    assert (witnessed.answer.holds, "is not the one" in witnessed.answer.words) == (False, True)
    (witnessed.audit / "cosigned").write_bytes(b"rubbish")
    assert (witnessed.answer.holds, "does not hold" in witnessed.answer.words) == (False, True)


def test_a_witness_on_this_host_is_under_no_other_administrator(tmp_path: Path, witnessed: Witnessed) -> None:
    """Its address says so; what holds the log's key holds its key, too. One elsewhere beside it counts."""
    witnessed.speak(NOW)
    vkey, other = witnessed.cosigner.key.encode(), Cosigner("witness.example/v", Ed25519PrivateKey.generate())
    for address, holds in (("http://127.0.0.1:1", False), ("http://[::1]:1", False), ("http://10.0.0.1:1", True)):
        named = json.dumps([f"{vkey} {address}", f"{other.key.encode()} http://10.0.0.2:1"])
        witnessed.configuration = configure(f"[audit]\nwitnesses = {named}\n", tmp_path)
        assert (witnessed.answer.holds, "asked on it" in witnessed.answer.words) == (holds, not holds)


def test_a_warning_that_is_off_or_comes_when_the_disk_is_full_is_none(tmp_path: Path) -> None:
    """AU-5(1) is claimed for what `audit.space_warning_bytes` does."""
    assert answers(configure("", tmp_path))["space_warning"].holds is True
    for bound in (0, 4_194_304):
        assert answers(configure(f"[audit]\nspace_warning_bytes = {bound}\n", tmp_path))["space_warning"].holds is False


def test_production_without_waivers(tmp_path: Path) -> None:
    """Which cannot be parsed here without waivers, as nothing is in place: so by hand."""
    configuration = configure("", tmp_path)
    assert answers(configuration)["production_mode"].holds is False
    production = msgspec.structs.replace(configuration, mode="production", waivers=("witness",))
    assert answers(production)["production_mode"].holds is True
    assert answers(production)["no_waivers"] == Answer(False, "waived: witness")


def test_modules_that_are_not_in_approved_mode_are_not_validated(tmp_path: Path) -> None:
    """Whatever the configuration asks for."""
    configuration = msgspec.structs.replace(configure("", tmp_path), fips=True)
    assert answers(configuration)["fips_modules"].holds is False


@pytest.mark.parametrize(
    ("content", "holds"),
    [
        (None, False),
        (b'{"software":"sha256:aa"}', True),
        (b'{"software":"sha256:bb"}', False),
        (b"[]", None),
        (b"{", None),
    ],
)
def test_the_statement_is_compared_with_what_runs(tmp_path: Path, content: bytes | None, holds: bool | None) -> None:
    """Another software, none, and a file that is none."""
    path = tmp_path / "state" / "run" / "statement.json"
    if content is not None:
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    assert answers(configure("", tmp_path))["statement"].holds is holds


def test_people_without_a_second_factor_are_named(tmp_path: Path, registry: Registry) -> None:
    """Those with a privileged role apart; the disabled do not count; nobody at all is not known."""
    configuration = configure("", tmp_path)
    assert answers(configuration, registry)["all_mfa"].holds is None
    registry.users.create(UserDefinition(login="ada", name="Ada"), actor="os:root")
    assert answers(configuration, registry)["all_mfa"].holds is True
    assert answers(configuration, registry)["privileged_mfa"].holds is None
    registry.users.create(UserDefinition(login="ben", name="Ben"), actor="os:root", totp=False)
    assert answers(configuration, registry)["all_mfa"] == Answer(False, "without a second factor: ben")
    registry.users.create(UserDefinition(login="cyd", name="Cyd", role=Role.ADMIN), actor="os:root", totp=False)
    assert answers(configuration, registry)["privileged_mfa"] == Answer(False, "without a second factor: cyd")


ISSUER = """
[[issuers]]
name = "corp"
issuer = "https://login.example"
audience = "casemate"
tenant = "acme"
jwks_file = "jwks.jws"
jwks_signer_file = "signer.pem"
"""


def test_what_a_provider_rules_is_for_the_customer_to_state(tmp_path: Path, registry: Registry) -> None:
    """How people sign in elsewhere, and whom it calls an auditor, is neither held nor missing."""
    assert answers(configure("", tmp_path))["local_sign_in"].holds is True
    found = answers(configure(ISSUER, tmp_path), registry)
    for fact in ("local_sign_in", "all_mfa", "privileged_mfa"):
        assert (found[fact].holds, found[fact].is_elsewhere) == (None, True), fact
    assert "corp" in found["local_sign_in"].words
    assert found["auditor_exists"].holds is False
    mapped = answers(configure(ISSUER + '[issuers.roles]\nreaders = "auditor"\n', tmp_path), registry)
    assert (mapped["auditor_exists"].holds, mapped["auditor_exists"].is_elsewhere) == (None, True)


@control("3.1.4", "AC-5", "AC-6(5)")
def test_privileged_accounts_by_one_persons_word_are_named(tmp_path: Path, registry: Registry) -> None:
    """Whatever the rule says now: those that can be used. Whom a provider calls an administrator nobody here agreed to."""
    configuration = configure(GOOD, tmp_path)
    assert answers(configuration, registry)["privileged_by_two"].holds is True
    registry.users.create(UserDefinition(login="ada", name="Ada", role=Role.ADMIN), actor="os:root")
    watch = registry.create(ClientDefinition(name="watch", role=Role.OPERATOR), actor="os:root").client.client_id
    found = answers(configuration, registry)["privileged_by_two"]
    assert found == Answer(False, f"one person alone decided on {', '.join(sorted(('ada', watch)))}")
    registry.disable(watch, actor="os:root")
    registry.roles.set_two_person(True, actor="configuration")
    assert answers(configuration, registry)["privileged_by_two"].holds is True
    registry.roles.approve("ada", actor="os:eve")
    registry.roles.set_two_person(False, actor="configuration")
    found = answers(configuration, registry)["privileged_by_two"]
    assert found == Answer(True, "two people decided on each of 1 privileged accounts that can be used")
    mapped = configure(ISSUER + '[issuers.roles]\nbosses = "admin"\n', tmp_path)
    found = answers(mapped, registry)["privileged_by_two"]
    assert (found.holds, found.is_elsewhere) == (None, True)


def test_an_auditor_and_static_keys_are_found(tmp_path: Path, registry: Registry) -> None:
    """A key that is over is none."""
    configuration = configure("", tmp_path)
    assert answers(configuration, registry)["auditor_exists"].holds is False
    assert answers(configuration, registry)["no_static_keys"].holds is True
    registry.users.create(UserDefinition(login="ada", name="Ada", role=Role.AUDITOR), actor="os:root")
    created = registry.create(ClientDefinition(name="batch"), actor="os:root")
    registry.keys.create(created.client.client_id, name="k", networks=("10.0.0.0/8",), days=30, actor="os:root")
    found = answers(configuration, registry)
    assert found["auditor_exists"].holds is True
    assert found["no_static_keys"] == Answer(False, "1 static keys can be used")
    definitions = read_definitions(registry.database)
    later = answer_all(configuration, definitions, "sha256:aa", NOW + 31 * 86_400, b"")
    assert later["no_static_keys"].holds is True
    assert [one.state for one in list_static_keys(definitions, NOW + 31 * 86_400)] == ["expired"]


def test_lists_hold_no_secret(tmp_path: Path, registry: Registry) -> None:
    """Neither hashes nor what they were made of."""
    user = registry.users.create(UserDefinition(login="ada", name="Ada"), actor="os:root")
    client = registry.create(ClientDefinition(name="batch"), actor="os:root")
    definitions = read_definitions(registry.database)
    told = repr([*list_people(definitions), *list_programs(definitions)])
    assert "ada" in told
    assert user.password not in told
    assert user.user.password_hash not in told
    assert str(client.client.secret_hash) not in told


def test_roles_are_told_with_who_has_them(registry: Registry) -> None:
    """Every role of the product, its scopes, and how many enabled accounts have it."""
    registry.users.create(UserDefinition(login="ada", name="Ada", role=Role.ADMIN), actor="os:root")
    registry.create(ClientDefinition(name="batch"), actor="os:root")
    definitions = read_definitions(registry.database)
    found = {one.role: one for one in list_roles(definitions, two_person_grants=True)}
    assert list(found) == [role.value for role in Role]
    assert (found["admin"].people, found["admin"].is_privileged) == (1, "yes")
    assert (found["user"].programs, found["user"].is_privileged, found["user"].models) == (1, "no", "all")
    assert "identity.manage" in found["admin"].scopes
    assert (found["admin"].needs_two, found["user"].needs_two) == ("yes", "no")
    assert {one.needs_two for one in list_roles(definitions, two_person_grants=False)} == {"no"}, (
        "one alone decides here"
    )
    assert sum(one.people + one.programs for one in list_roles(None, two_person_grants=True)) == 0


def test_secrets_of_the_configuration_are_hidden(tmp_path: Path) -> None:
    """The rest is there, by the keys' own names."""
    text = '[policy]\ndatabase_url = "postgresql://casemate:hunter2@192.0.2.7/casemate"\n'
    shown = hide_secrets(configure(text, tmp_path))
    assert shown["policy"]["database_url"] == HIDDEN
    assert shown["audit"]["origin"] == "casemate.internal/audit"
    assert "hunter2" not in json.dumps(shown)
    assert hide_secrets(configure("", tmp_path))["policy"]["database_url"] is None


KEYS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "audit/log.key": (lambda path: write_ed25519(path), "Ed25519"),
    "gateway/responses.key": (lambda path: path.write_bytes(bytes(32)), "secret of 256 bits"),
    CLIENT_KEY: (lambda path: write_ed25519(path), "Ed25519"),
    "else/odd.pem": (lambda path: path.write_bytes(b"-----BEGIN NOTHING-----\n"), "encrypted, or of another form"),
}


def write_ed25519(path: Path) -> None:
    """A key in PEM."""
    path.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def test_keys_are_listed_without_themselves(tmp_path: Path) -> None:
    """By purpose, holder, kind and mode; a file that nobody knows is told as well."""
    for name, (write, _) in KEYS.items():
        path = tmp_path / "state" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
        os.chmod(path, 0o600)
    found = {key.file: key for key in list_keys(configure("", tmp_path))}
    assert {name: key.algorithm for name, key in found.items()} == {name: kind for name, (_, kind) in KEYS.items()}
    assert found["audit/log.key"].holder == "auditor"
    assert found["audit/log.key"].identifier.startswith("sha256:")
    assert found["gateway/responses.key"].identifier == ""
    assert [name for name, key in found.items() if key.purpose == "is on no list"] == ["else/odd.pem"]
    assert found[CLIENT_KEY].holder == "console"
    assert {key.mode for key in found.values()} == {"600"}


@control("SC-12")
def test_shares_and_roots_are_listed_by_their_day(tmp_path: Path) -> None:
    """How many of which mode; neither their names, which tell tenants apart, nor what is in them."""
    store = ShareStore(tmp_path / "state" / "audit" / SHARES)
    for day, tenant in (("2026-11-24", "a"), ("2026-11-25", "a"), ("2026-11-25", "b")):
        store.keep(root_context(tenant, day), b"[]")
    found = [key for key in list_keys(configure("", tmp_path)) if "/shares/" in key.file]
    assert [(key.file, key.algorithm, key.mode) for key in found] == [
        ("audit/shares/2026-11-24/*.json", "1 secrets of 256 bits", "600"),
        ("audit/shares/2026-11-25/*.json", "2 secrets of 256 bits", "600"),
    ]


@control("CM-6", "3.12.3")
def test_a_configuration_that_nobody_was_started_by_shows_nothing(tmp_path: Path) -> None:
    """Whoever writes protections into the file and starts nothing gets no evidence of them."""
    path = tmp_path / "state" / "run" / "statement.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"configuration": "sha256:11", "software": "sha256:aa"}))
    configuration = configure(GOOD, tmp_path)
    started, edited = (
        answer_all(configuration, None, "sha256:aa", NOW, b"", digest=digest) for digest in ("sha256:11", "sha256:22")
    )
    for name in ("two_person_grants", "banner", "segments", "lockout", "no_waivers"):
        assert (started[name].holds, edited[name].holds) == (True, None)
    assert edited["banner"].words.endswith("the last start was by another configuration")
    assert (started["statement"].holds, edited["statement"].holds) == (True, False)
    assert edited["auditor_exists"] == started["auditor_exists"]


@control("CM-6", "3.12.3")
def test_a_statement_that_the_log_does_not_know_shows_nothing(tmp_path: Path) -> None:
    """Whoever can write into the state folder can write what was measured there, and not into the log."""
    path = tmp_path / "state" / "run" / "statement.json"
    path.parent.mkdir(parents=True)
    raw = b"# as it was started"
    digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"

    def write(configuration: str) -> str:
        path.write_text(json.dumps({"configuration": configuration, "software": f"sha256:{measure_software()}"}))
        return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"

    log = tmp_path / "state" / "audit" / "log"
    writer = LogWriter(log, log.with_suffix(".key"), origin="log.example/x")

    def record(measured: str) -> None:
        event = host_event(
            "statement_measured", name="casemate", digest=measured, actor="supervisor", at_ms=5, facts={}
        )
        entry = complete_entry(
            event, index=writer.size, time_ms=5, reporter="supervisor/0", log_name="log.example/x", random=bytes(16)
        )
        writer.append([entry])
        writer.commit()
        writer.publish()

    def ask() -> tuple[bool | None, bool | None]:
        found = gather_installation(configure(GOOD, tmp_path), raw, NOW).answers
        return found["statement"].holds, found["banner"].holds

    lax = write("sha256:33")
    record(lax)
    assert ask() == (False, None), "another configuration"
    write(digest)
    assert ask() == (False, None), "a statement that nobody recorded"
    record(write(digest))
    assert ask() == (True, True)
    record(lax)
    assert ask() == (False, None), "an older one"
    writer.close()


def test_an_installation_without_anything_can_be_told(tmp_path: Path) -> None:
    """No state, no definitions: nothing is made."""
    configuration = configure("", tmp_path)
    installation = gather_installation(configuration, b"raw", NOW)
    assert (installation.people, installation.programs, installation.keys, installation.statement) == ((), (), (), b"")
    assert json.loads(installation.sbom)["bomFormat"] == "CycloneDX"
    assert not (tmp_path / "state").exists()
