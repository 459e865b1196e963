"""The running statement: it changes with each part of what runs, and with nothing else."""

import hashlib
import json
import os
import stat
from importlib.metadata import distributions
from pathlib import Path

import msgspec
import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from appliance.cli.main import main
from appliance.config import parse_configuration
from appliance.config.defaults import DEMO_MODEL_DIR, default_configuration
from appliance.config.showing import flatten_settings
from appliance.errors import StartRefused
from appliance.statement import measuring
from appliance.statement.attesting import attest_statement, describe_tpm, keep_quote, quote_path
from appliance.statement.remembering import recall_configuration, remember_configuration
from appliance.statement.statement import UNVERIFIED, RunningStatement, keep_statement, measure_statement
from audit.changes import MAX_CHANGES, configuration_loaded_event
from audit.entry import encode_event, parse_canonical
from security.stewards.approving import approve_model, promote_model
from security.stewards.importing import Source, import_model
from security.stewards.store import ModelStore
from security.tpm.attestation_key import key_digest
from security.tpm.quote import Quote
from security.tpm.quoting import read_key
from security.tpm.settings import TpmSettings
from tests.support.controls import control
from tests.support.soft_tpm import running_tpm
from tests.support.stewardship import Stewardship


def measure(state: Path, model: Path = DEMO_MODEL_DIR) -> RunningStatement:
    """Of a default configuration."""
    configuration, raw = default_configuration(model, "tiny", state)
    return measure_statement(configuration, raw)


@control("3.4.1", "CM-2", "CM-2(2)", "CM-8")
def test_statement_is_the_same_twice_and_names_everything(tmp_path: Path) -> None:
    """Two measurements of one host are equal to the byte."""
    one, two = measure(tmp_path), measure(tmp_path)
    assert one.encode() == two.encode()
    assert one.digest == f"sha256:{hashlib.sha256(one.encode()).hexdigest()}"
    assert set(one.facts) == {
        "software", "dependencies", "interpreter", "kernels", "cache_scales", "configuration", "models", "load_digests", "gpu",
        "driver", "kernel", "tpm",
    }  # fmt: skip
    assert one.facts["models"] == f"tiny={UNVERIFIED}"


def test_the_scales_of_a_kv_cache_are_named_by_their_digest(tmp_path: Path) -> None:
    """Of each engine that names a file of them; it lies apart from the model, so nothing else vouches for it."""
    configuration, raw = default_configuration(DEMO_MODEL_DIR, "tiny", tmp_path)
    path = tmp_path / "scales.json"
    path.write_bytes(b"{}")
    engine = msgspec.structs.replace(
        configuration.engines[0], kv_cache_dtype="fp8_e4m3", quantization_param_path=str(path)
    )
    statement = measure_statement(msgspec.structs.replace(configuration, engines=[engine]), raw)
    assert statement.facts["cache_scales"] == f"tiny=sha256:{hashlib.sha256(b'{}').hexdigest()}"


def test_promoted_model_is_named_by_its_digest(tmp_path: Path) -> None:
    """What the stewards approved is what the statement names: the manifest, and the list by which weights are verified."""
    people, store = Stewardship(), ModelStore(tmp_path / "models")
    people.establish(tmp_path)
    source = Source(DEMO_MODEL_DIR, "tiny", "made here", "Apache-2.0")
    item = import_model(source, store, people.roles, people.signer("ines"), ()).item
    for name in ("ada", "bob"):
        approve_model(item, people.roles, people.signer(name))
    promote_model(store, item, people.roles)
    facts = measure(tmp_path, store.path_of("tiny")).facts
    assert facts["models"] == f"tiny=sha256:{item.root}"
    weights = blake3((DEMO_MODEL_DIR / "model.safetensors").read_bytes()).hexdigest()
    listed = hashlib.sha256(f"{weights}  model.safetensors\n".encode()).hexdigest()
    assert facts["load_digests"] == f"tiny=sha256:{listed}"
    assert measure(tmp_path).facts["load_digests"] == "tiny=none"


@control("3.4.1", "3.14.5", "CM-2", "CM-2(2)", "CM-6(2)", "CM-8(2)", "SI-7", "SI-7(1)", "SR-9", "SR-9(1)")
def test_one_byte_of_our_software_changes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is changed, added or renamed; byte-code caches do not count."""
    for package in measuring.PACKAGES:
        (tmp_path / package / "inner").mkdir(parents=True)
        (tmp_path / package / "__init__.py").write_text("")
        (tmp_path / package / "inner" / "code.py").write_text("x = 1\n")
    monkeypatch.setattr(measuring, "_folder_of", lambda package: tmp_path / package)
    seen = {measuring.measure_software()}
    (tmp_path / "audit" / "__pycache__").mkdir()
    (tmp_path / "audit" / "__pycache__" / "x.pyc").write_text("cache")
    assert measuring.measure_software() in seen
    for change in (
        lambda: (tmp_path / "audit/inner/code.py").write_text("x = 2\n"),
        lambda: (tmp_path / "audit/extra.py").touch(),
        lambda: (tmp_path / "audit/extra.py").rename(tmp_path / "audit/other.py"),
    ):
        change()
        digest = measuring.measure_software()
        assert digest not in seen
        seen.add(digest)


def test_dependencies_have_the_names_that_their_metadata_gives_them() -> None:
    """Only its head is parsed; the library parses the description that follows as well."""
    lines = {
        f"{one.metadata['Name']} {one.version} {hashlib.sha256((one.read_text('RECORD') or '').encode()).hexdigest()}\n"
        for one in distributions()
    }
    assert measuring.measure_dependencies() == hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def test_kernels_of_each_engine_are_named(tmp_path: Path) -> None:
    """Those in the folder that the configuration names."""
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "decode.cubin").write_bytes(b"code")
    text = f'[[engines]]\nmodel_path = "{DEMO_MODEL_DIR}"\nserved_model_name = "tiny"\nkernels_path = "kernels"\n'
    configuration = parse_configuration(text.encode(), tmp_path)
    facts = measure_statement(configuration, text.encode()).facts
    assert facts["kernels"] == f"tiny=sha256:{measuring.measure_kernels(tmp_path / 'kernels')}"
    assert measure(tmp_path).facts["kernels"] == "none"


def test_kernels_and_gpus_are_described(tmp_path: Path) -> None:
    """As they lie there; `none` where there are none."""
    assert measuring.measure_kernels(tmp_path / "none") == "none"
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "notes.txt").touch()
    assert measuring.measure_kernels(tmp_path / "kernels") == "none"
    (tmp_path / "kernels" / "decode.cubin").write_bytes(b"code")
    assert len(measuring.measure_kernels(tmp_path / "kernels")) == 64
    gpus, driver = tmp_path / "gpus", tmp_path / "version"
    (gpus / "0").mkdir(parents=True)
    (gpus / "0" / "information").write_text("Model: \t H200\nVideo BIOS: \t 96.00\n")
    driver.write_text("NVRM version: 580.1\nGCC\n")
    assert measuring.describe_gpus(gpus, driver) == ("H200 (96.00)", "NVRM version: 580.1")
    assert measuring.describe_gpus(tmp_path / "no", tmp_path / "no") == ("none", "none")


def test_kept_statement_hashes_to_what_answers_name(tmp_path: Path) -> None:
    """`sha256sum state/run/statement.json` is the check that anybody can do."""
    statement = measure(tmp_path)
    path = keep_statement(statement, tmp_path)
    assert f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" == statement.digest
    assert json.loads(path.read_bytes())["type"] == "casemate.statement/1"


@control("AU-12(3)", "CM-3", "CM-6(2)", "Article 12(2)")
def test_a_start_before_its_record_leaves_the_difference_to_the_next(tmp_path: Path) -> None:
    """Before and after are told until a record of it is durable; only then the new one is remembered."""
    assert recall_configuration(tmp_path).digest == ""
    remember_configuration(tmp_path, "sha256:aa", {"a": "1"})
    for _ in range(2):  # The first of these starts was killed before its record.
        before = recall_configuration(tmp_path)
        assert (before.digest, before.changes_to({"a": "2"})) == ("sha256:aa", {"a": ("1", "2")})
    remember_configuration(tmp_path, "sha256:bb", {"a": "2"})
    before = recall_configuration(tmp_path)
    assert (before.digest, before.changes_to({"a": "2"})) == ("sha256:bb", {})


@pytest.mark.parametrize("name", ["statement.json", "statement.quote.json", "configuration.json"])
def test_what_a_start_says_of_itself_survives_a_power_cut(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is on the disk before its name is, and the name before anything goes on."""
    done: list[str] = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(
        os, "fsync", lambda fd: (done.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"), sync(fd))[1]
    )
    monkeypatch.setattr(Path, "replace", lambda path, to: (done.append(to.name), replace(path, to))[1])
    match name:
        case "statement.json":
            keep_statement(RunningStatement({}), tmp_path)
        case "statement.quote.json":
            keep_quote(Quote(generate_private_key(SECP256R1()).public_key(), b"n", b"a", b"s", {}), tmp_path)
        case _:
            remember_configuration(tmp_path, "sha256:aa", {})
    assert done == ["file", name, "folder"]


@control("3.3.1", "AU-12", "AU-12(3)", "CM-3", "CM-6(2)")
def test_each_start_tells_what_of_the_configuration_is_another(tmp_path: Path) -> None:
    """By key, before and after, another content of a file that others are believed by as well; no secret."""
    (tmp_path / "ca.pem").write_text("one")
    text = '[tls]\nca_certificate = "ca.pem"\n[audit]\nbody_retention_days = {days}\n[[engines]]\nmodel_path = "m"\n'

    def start(days: int) -> dict[str, tuple[str, str]] | None:
        configuration = parse_configuration(text.format(days=days).encode(), tmp_path)
        settings = flatten_settings(configuration)
        changes = recall_configuration(tmp_path).changes_to(settings)
        remember_configuration(tmp_path, "sha256:aa", settings)
        return changes

    assert start(30) is None
    assert start(30) == {}
    assert start(9) == {"audit.body_retention_days": ("30", "9")}
    (tmp_path / "ca.pem").write_text("other")
    digests = tuple(hashlib.sha256(content).hexdigest() for content in (b"one", b"other"))
    assert start(9) == {"tls.ca_certificate sha256": digests}
    (tmp_path / "run" / "configuration.json").write_text("{")
    assert start(9) is None
    event = configuration_loaded_event(
        digest="d", previous_digest="e", mode="production", lacks=(), changes={"k" * 200: ("é" * 200, '"' * 200)} | {
            f"key {number}": ("\\" * 200, "\x01" * 200) for number in range(100)
        },
    )  # fmt: skip
    own = parse_canonical(encode_event(event))["unmapped"]["casemate"]
    assert (own["num_changes"], len(own["changes"])) == (101, MAX_CHANGES)


def test_statement_names_the_key_that_quotes_it(tmp_path: Path) -> None:
    """And the quote is over the statement as it is kept; verified by the command, with the key and nothing else."""
    (tmp_path / "tpm").mkdir()
    with running_tpm(tmp_path / "tpm") as device:
        configuration, raw = default_configuration(DEMO_MODEL_DIR, "tiny", tmp_path)
        settings = TpmSettings(device=str(device), quote="required", pcrs=(7, 0))
        configuration = msgspec.structs.replace(configuration, tpm=settings)
        statement = measure_statement(configuration, raw)
        attestation = attest_statement(settings, statement.encode())
        key = read_key(device)
    assert statement.facts["tpm"] == f"key sha256:{key_digest(key)}"
    assert attestation.summary == f"quoted by key sha256:{key_digest(key)}"
    assert attestation.quote is not None
    keep_statement(statement, tmp_path)
    keep_quote(attestation.quote, tmp_path)
    pem = tmp_path / "tpm.pub"
    pem.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    command = ["statement", "verify", "--state", str(tmp_path), "--key", str(pem)]
    assert main(command) == 0
    assert main([*command, "--nonce", "00" * 16]) == 1
    (tmp_path / "run" / "statement.json").write_bytes(statement.encode().replace(b"tiny", b"tidy"))
    assert main(command) == 1


def test_no_quote_of_an_earlier_start_is_left(tmp_path: Path) -> None:
    """Without a TPM the statement says `none`, the summary why; and what was quoted once does not look like now."""
    settings = TpmSettings(device=str(tmp_path / "tpmrm0"))
    quote_path(tmp_path).parent.mkdir()
    quote_path(tmp_path).write_bytes(b"of an earlier start")
    attestation = attest_statement(settings, b"statement")
    keep_quote(attestation.quote, tmp_path)
    assert not quote_path(tmp_path).exists()
    assert describe_tpm(settings) == "none"
    assert attestation.summary == f"not quoted: {tmp_path}/tpmrm0: No such file or directory"
    assert attest_statement(TpmSettings(quote="off"), b"").summary == "not quoted: tpm.quote is off"


def test_required_quote_that_cannot_be_had_stops_the_start(tmp_path: Path) -> None:
    """Before anything is started."""
    settings = TpmSettings(device=str(tmp_path / "tpmrm0"), quote="required")
    with pytest.raises(StartRefused, match=r"tpm\.quote is required: .*tpmrm0: No such file"):
        describe_tpm(settings)
    with pytest.raises(StartRefused, match=r"tpm\.quote is required"):
        attest_statement(settings, b"statement")
