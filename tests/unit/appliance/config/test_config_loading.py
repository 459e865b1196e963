"""From a file to a configuration: rules between sections, what lies on disk, what production demands."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from appliance.config import ConfigurationRejected, default_configuration, parse_configuration, what_is_lacking
from appliance.config.disk import find_missing_files, load_configuration
from appliance.config.environment import find_configuration_file
from appliance.config.lacks import PROTECTIONS
from audit.signing_key import open_cosigners
from security.sandbox.platform import Platform
from tests.support.controls import control

FOLDER = Path("/srv/casemate")
ENGINE = '[[engines]]\nmodel_path = "model"\n'
EVERYTHING = Platform(7, "", has_filter=True, no_private_root="", no_own_users="")
UNCONFINED = f'{ENGINE}device = "cuda"\n[confinement]\nenabled = false\n'
"""Lacks every protection, whatever the machine that the tests run on can do."""


def refused_keys(text: str, folder: Path = FOLDER) -> list[str]:
    """The keys that are refused, in order."""
    with pytest.raises(ConfigurationRejected) as refusal:
        parse_configuration(text.encode(), folder)
    return [problem.key for problem in refusal.value.problems]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with a model's configuration file in it, and a casemate.toml that names it."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "casemate.toml").write_text(ENGINE)
    return tmp_path


@pytest.mark.parametrize(
    ("gateway", "authority"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("10.0.0.1", "::")]
)
def test_two_listeners_on_one_port_are_refused(gateway: str, authority: str) -> None:
    """The second would not start, or would take the first one's clients."""
    text = f'[gateway]\nhost = "{gateway}"\nport = 9000\n[authority]\nhost = "{authority}"\nport = 9000\n{ENGINE}'
    assert refused_keys(text) == ["authority.port"]


@pytest.mark.parametrize(("backend", "device", "is_refused"), [("triton", "cpu", True), ("triton", "cuda", False)])
def test_a_gpus_kernels_on_a_cpu_are_refused(backend: str, device: str, is_refused: bool) -> None:
    """By the check, and not only by the engine as it starts."""
    text = f'{ENGINE}attention_backend = "{backend}"\ndevice = "{device}"\n'
    if is_refused:
        assert refused_keys(text) == ["engines[0].attention_backend"]
    else:
        assert parse_configuration(text.encode(), FOLDER).engines[0].attention_backend == backend


def test_what_cannot_be_looked_at_is_said_by_its_key(site: Path) -> None:
    """A folder on the way may be closed to this user; the message was the system's alone, without a key."""
    (site / "casemate.toml").write_text(
        f'state_dir = "{"s" * 300}"\n[tls]\ncertificate = "{"c" * 300}"\nkey = "model/config.json"\n'
        f'[[engines]]\nmodel_path = "{"m" * 300}"\n'
    )
    with pytest.raises(ConfigurationRejected) as refusal:
        load_configuration(site / "casemate.toml")
    problems = {problem.key: problem.message for problem in refusal.value.problems}
    assert problems.keys() == {"engines[0].model_path", "tls.certificate", "state_dir"}
    assert all(message.endswith("got no answer: File name too long") for message in problems.values())


def test_what_no_certificate_can_name_is_refused_by_its_key() -> None:
    """Found by the check, and not only as the automatic certificate is made; a certificate of one's own names what it names."""
    hosts = '[gateway]\nhost = "not a host"\n[console]\nhost = "häuschen"\n'
    names = '[tls]\nextra_names = ["good.example", "bad name"]\n'
    assert refused_keys(f"{hosts}{names}{ENGINE}") == ["tls.extra_names[1]", "gateway.host", "console.host"]
    own = '[tls]\ncertificate = "c.pem"\nkey = "k.pem"\n'
    assert parse_configuration(f"{hosts}{own}{ENGINE}".encode(), FOLDER).gateway.host == "not a host"


def test_a_console_needs_the_admin_api_and_ports_that_are_known() -> None:
    """It is a client of the other listeners, and its own port is no other's."""
    console = "[console]\nenabled = true\n"
    assert refused_keys(f"{console}{ENGINE}") == ["administration.enabled"]
    administration = "[administration]\nenabled = true\n"
    parse_configuration(f"{administration}{console}{ENGINE}".encode(), FOLDER)
    known = '[authority]\nissuer = "https://a.example"\n'
    text = f"{administration}port = 0\n{console}port = 8443\n{known}port = 0\n{ENGINE}"
    assert refused_keys(text) == ["console.port", "authority.port", "administration.port"]


@pytest.mark.parametrize(("host", "port"), [("127.0.0.2", 9000), ("127.0.0.1", 9001)])
def test_two_listeners_that_do_not_meet_are_accepted(host: str, port: int) -> None:
    """One port on two addresses is no conflict."""
    text = f'[gateway]\nhost = "127.0.0.1"\nport = 9000\n[authority]\nhost = "{host}"\nport = {port}\n{ENGINE}'
    assert parse_configuration(text.encode(), FOLDER).authority.port == port


def test_any_free_port_may_be_asked_for_twice() -> None:
    """Port 0 is not a port but a wish for one."""
    text = f"[gateway]\nport = 0\n[authority]\nport = 0\n{ENGINE}"
    assert parse_configuration(text.encode(), FOLDER).gateway.port == 0


def test_two_engines_that_serve_one_name_are_refused() -> None:
    """A client could not say which model it means; the name may come from the folder."""
    text = f'{ENGINE}[[engines]]\nmodel_path = "other"\nserved_model_name = "model"\n'
    assert refused_keys(text) == ["engines[1].served_model_name"]


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ('speculative_algorithm = "EAGLE3"', "speculative_draft_model_path"),
        ("speculative_num_steps = 3", "speculative_num_steps"),
        (
            'speculative_algorithm = "EAGLE3"\nspeculative_draft_model_path = "head"\nspeculative_eagle_topk = 1',
            "speculative_num_steps",
        ),
    ],
)
def test_drafting_that_contradicts_itself_is_refused(given: str, key: str) -> None:
    """Nothing is corrected silently, and nothing is without effect."""
    assert f"engines[0].{key}" in refused_keys(f"{ENGINE}{given}\n")


@pytest.mark.parametrize(("given_key", "missing"), [("certificate", "tls.key"), ("key", "tls.certificate")])
def test_half_a_certificate_is_refused(given_key: str, missing: str) -> None:
    """A certificate without its key, or a key without its certificate, serves nobody."""
    assert missing in refused_keys(f'{ENGINE}[tls]\n{given_key} = "x.pem"\n')


def test_first_restart_delay_above_the_longest_is_refused() -> None:
    """Contradicting limits are told, not sorted out in silence."""
    text = f"{ENGINE}[supervisor]\nrestart_delay_s = 20\nmax_restart_delay_s = 10\n"
    assert refused_keys(text) == ["supervisor.max_restart_delay_s"]


@control("3.4.2", "CM-3(2)", "CM-6", "CM-6(1)", "SI-6")
def test_production_refuses_to_start_and_names_each_missing_protection() -> None:
    """Nothing that is not there is taken for granted."""
    with pytest.raises(ConfigurationRejected) as refusal:
        parse_configuration(f'mode = "production"\n{UNCONFINED}'.encode(), FOLDER)
    told = str(refusal.value)
    for name in ("signed_models", "frozen_kernels", "confinement", "witness"):
        assert f'production needs "{name}"' in told


def test_production_starts_with_every_missing_protection_waived_by_name() -> None:
    """A waiver is in the file, for everybody to see, and is still told."""
    names = ", ".join(f'"{name}"' for name in PROTECTIONS)
    configuration = parse_configuration(f'mode = "production"\nwaivers = [{names}]\n{ENGINE}'.encode(), FOLDER)
    assert {lack.name for lack in what_is_lacking(configuration) if lack.waived} >= {"signed_models", "witness"}


@control("3.4.2", "CM-6")
def test_one_waiver_too_few_is_one_refusal() -> None:
    """Waivers do not spread."""
    names = ", ".join(f'"{name}"' for name in PROTECTIONS if name != "confinement")
    text = f'mode = "production"\nwaivers = [{names}]\n{UNCONFINED}'
    with pytest.raises(ConfigurationRejected) as refusal:
        parse_configuration(text.encode(), FOLDER)
    assert [problem.message.split('"')[1] for problem in refusal.value.problems] == ["confinement"]


def test_production_refuses_random_weights_whatever_is_waived() -> None:
    """They are for measurements, in development."""
    names = ", ".join(f'"{name}"' for name in PROTECTIONS)
    text = f'waivers = [{names}]\n{ENGINE}load_format = "dummy"\n'
    assert refused_keys(f'mode = "production"\n{text}') == ["engines[0].load_format"]
    assert parse_configuration(text.encode(), FOLDER).engines[0].load_format == "dummy"


@pytest.mark.parametrize("mode", ["development", "production"])
def test_waiver_of_nothing_known_is_refused(mode: str) -> None:
    """A misspelt waiver must not look like one."""
    assert "waivers" in refused_keys(f'mode = "{mode}"\nwaivers = ["signed_modles"]\n{ENGINE}')


def test_development_lists_what_it_lacks() -> None:
    """The same list that production refuses for, with nothing waived."""
    lacks = what_is_lacking(parse_configuration(UNCONFINED.encode(), FOLDER))
    assert [lack.name for lack in lacks] == list(PROTECTIONS)
    assert not any(lack.waived for lack in lacks)


def test_kernels_are_lacking_where_a_gpu_engine_is_not_frozen() -> None:
    """An engine on a CPU runs none; one on a GPU says by `frozen` that it takes them from a bundle alone."""

    def lacks(engine: str) -> set[str]:
        return {lack.name for lack in what_is_lacking(parse_configuration(f"{ENGINE}{engine}".encode(), FOLDER))}

    assert "frozen_kernels" not in lacks("")
    assert "frozen_kernels" in lacks('device = "cuda"\nkernels_path = "kernels"\n')
    assert "frozen_kernels" not in lacks('device = "cuda"\nkernels_path = "kernels"\nfrozen = true\n')


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("frozen = true\n", "engines[0].kernels_path"),
        (f'kernels_path = "kernels"\nkernels_sha256 = "{"0" * 64}"\n', "engines[0].kernels_sha256"),
    ],
    ids=["no bundle", "a digest of loose files"],
)
def test_half_a_frozen_engine_is_refused(given: str, named: str) -> None:
    """A bundle without a folder cannot be; a digest of what has none would be no protection."""
    assert refused_keys(f"{ENGINE}{given}") == [named]


DRAFTS = """speculative_algorithm = "EAGLE3"
speculative_draft_model_path = "head"
speculative_num_steps = 3
speculative_num_draft_tokens = 4
"""


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ('attention_backend = "flashinfer"\n', ["engines[0].attention_backend"]),
        ('attention_backend = "reference"\n', ["engines[0].attention_backend"]),
        ('quantization = "fp8"\n', ["engines[0].quantization"]),
        (f"{DRAFTS}speculative_eagle_topk = 2\n", ["engines[0].speculative_eagle_topk"]),
        (f"{DRAFTS}speculative_eagle_topk = 1\n", []),
        ('attention_backend = "triton"\nkv_cache_dtype = "fp8_e4m3"\n', []),
    ],
)
def test_what_deterministic_excludes_is_refused(given: str, named: list[str]) -> None:
    """On a GPU; on a CPU it excludes nothing."""
    asked = f"{ENGINE}deterministic = true\n{given}"
    if named:
        assert refused_keys(f'{asked}device = "cuda"\n') == named
    else:
        assert parse_configuration(f'{asked}device = "cuda"\n'.encode(), FOLDER).engines[0].deterministic
    on_cpu = f'{ENGINE}deterministic = true\nquantization = "fp8"\n'
    assert parse_configuration(on_cpu.encode(), FOLDER).engines[0].deterministic


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ('quantization_param_path = "scales.json"\n', ["engines[0].quantization_param_path"]),
        (
            'kv_cache_dtype = "fp8_e4m3"\nattention_backend = "flashinfer"\ndevice = "cuda"\n',
            ["engines[0].attention_backend"],
        ),
        ('kv_cache_dtype = "fp8_e4m3"\nquantization_param_path = "scales.json"\n', []),
    ],
    ids=["scales of no cache", "attention that cannot read it", "both halves"],
)
def test_half_an_e4m3_cache_is_refused(given: str, named: list[str]) -> None:
    """Options that contradict each other are errors, never silently corrected."""
    if named:
        assert refused_keys(f"{ENGINE}{given}") == named
    else:
        assert parse_configuration(f"{ENGINE}{given}".encode(), FOLDER).engines[0].kv_cache_dtype == "fp8_e4m3"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("chunked_prefill_size = 64\nmixed_prefill_size = 65\n", ["engines[0].mixed_prefill_size"]),
        ("mixed_prefill_size = 513\n", ["engines[0].mixed_prefill_size"]),
        ('mixed_prefill_size = 513\ndevice = "cuda"\n', []),
        ("chunked_prefill_size = 64\n", []),
        ("context_length = 1025\nmax_total_tokens = 1024\n", ["engines[0].context_length"]),
        ("context_length = 1024\nmax_total_tokens = 1024\n", []),
        ("max_total_tokens = 1024\n", []),
    ],
)
def test_sizes_that_contradict_each_other_are_refused(given: str, named: list[str]) -> None:
    """The smaller would silently have been taken. What is left open is what the other leaves."""
    if named:
        assert refused_keys(f"{ENGINE}{given}") == named
    else:
        parse_configuration(f"{ENGINE}{given}".encode(), FOLDER)


def test_own_certificates_are_no_longer_lacking_once_they_are_named() -> None:
    """The list follows the configuration, it is not a fixed text."""
    text = f'{ENGINE}[tls]\ncertificate = "c.pem"\nkey = "k.pem"\n'
    assert "own_certificates" not in {lack.name for lack in what_is_lacking(parse_configuration(text.encode(), FOLDER))}


@pytest.mark.parametrize(
    ("platform", "consequence"),
    [
        (EVERYTHING, None),
        (EVERYTHING._replace(landlock_abi=2), "It is incomplete on this system: Landlock ABI 2"),
        (
            EVERYTHING._replace(no_empty_network="Operation not permitted"),
            "It is incomplete on this system: no network namespaces",
        ),
    ],
)
def test_confinement_is_lacking_as_far_as_the_system_cannot(
    monkeypatch: pytest.MonkeyPatch, platform: Platform, consequence: str | None
) -> None:
    """Complete: no lack. Otherwise one that tells what is missing, and that production refuses."""
    monkeypatch.setattr("appliance.config.lacks.probe_platform", lambda _first_uid: platform)
    told = {lack.name: lack.consequence for lack in what_is_lacking(parse_configuration(ENGINE.encode(), FOLDER))}
    assert told.get("confinement", "").startswith(consequence or "")
    assert ("confinement" in told) == (consequence is not None)
    names = ", ".join(f'"{name}"' for name in PROTECTIONS if name != "confinement")
    text = f'mode = "production"\nwaivers = [{names}]\n{ENGINE}'
    if consequence is None:
        parse_configuration(text.encode(), FOLDER)
    else:
        assert refused_keys(text) == ["mode"]


def test_file_is_read_once_and_its_bytes_are_returned(site: Path) -> None:
    """Every process parses these bytes, whatever becomes of the file."""
    configuration, data = load_configuration(site / "casemate.toml")
    assert data == ENGINE.encode()
    assert configuration.state_path == site / "state"
    assert parse_configuration(data, site) == configuration


def test_relative_file_name_gives_absolute_paths(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that changes its folder still finds its files."""
    monkeypatch.chdir(site)
    assert load_configuration(Path("casemate.toml"))[0].engines[0].model_path == str(site / "model")


@pytest.mark.parametrize("name", ["nowhere.toml", "model"])
def test_file_that_cannot_be_read_is_refused(site: Path, name: str) -> None:
    """A missing file and a folder are told by name, without a traceback."""
    with pytest.raises(ConfigurationRejected, match=f"{name}: cannot be read: "):
        load_configuration(site / name)


def test_a_draft_head_must_be_there(site: Path) -> None:
    """Its folder is looked for like the model's."""
    drafting = 'speculative_algorithm = "EAGLE3"\nspeculative_draft_model_path = "head"\n'
    (site / "casemate.toml").write_text(f"{ENGINE}{drafting}")
    with pytest.raises(ConfigurationRejected) as refusal:
        load_configuration(site / "casemate.toml")
    assert [problem.key for problem in refusal.value.problems] == ["engines[0].speculative_draft_model_path"]


def test_missing_files_are_named_with_their_keys(site: Path) -> None:
    """Model, certificate and key are looked for before anything starts."""
    (site / "state").write_text("")
    (site / "casemate.toml").write_text(
        '[[engines]]\nmodel_path = "gone"\n[tls]\ncertificate = "c.pem"\nkey = "k.pem"\n'
    )
    with pytest.raises(ConfigurationRejected) as refusal:
        load_configuration(site / "casemate.toml")
    keys = [problem.key for problem in refusal.value.problems]
    assert keys == ["engines[0].model_path", "tls.certificate", "tls.key", "state_dir"]


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=40))
def test_default_configuration_survives_any_folder_name(name: str) -> None:
    """The zero-configuration start works in a folder with quotes, line ends or any other character in its name."""
    model = Path("/srv") / name
    configuration, data = default_configuration(model, "demo", Path("/srv/state"), (0, 0), head_dir=model / "head")
    assert configuration.engines[0].model_path == str(model)
    assert configuration.engines[0].speculative_draft_model_path == str(model / "head")
    assert configuration.engines[0].speculative_algorithm == "EAGLE3"
    assert parse_configuration(data, Path("/elsewhere")) == configuration


def test_file_is_found_by_name_then_environment_then_here(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The three places, in their order, and none besides."""
    monkeypatch.delenv("CASEMATE_CONFIG", raising=False)
    monkeypatch.chdir(site)
    assert find_configuration_file() == Path("casemate.toml")
    monkeypatch.setenv("CASEMATE_CONFIG", "/etc/casemate.toml")
    assert find_configuration_file() == Path("/etc/casemate.toml")
    assert find_configuration_file("mine.toml") == Path("mine.toml")
    monkeypatch.delenv("CASEMATE_CONFIG")
    monkeypatch.chdir(site / "model")
    assert find_configuration_file() is None


def test_witnesses_that_cannot_be_asked_are_refused(tmp_path: Path) -> None:
    """A key that is none, a name in place of an address, a quorum that cannot be met, an arrow that is not declared."""
    (cosigner,) = open_cosigners(tmp_path, "witness.example/w", with_mldsa=False)
    vkey = cosigner.key.encode()
    assert refused_keys(f'{ENGINE}[audit]\nwitnesses = ["nonsense"]\n') == ["audit.witnesses"]
    assert refused_keys(f'{ENGINE}[audit]\nwitnesses = ["{vkey} https://by.name:1"]\n') == ["audit.witnesses"]
    assert refused_keys(f'{ENGINE}[audit]\nwitness_quorum = 2\nwitnesses = ["{vkey}"]\n') == ["audit.witness_quorum"]
    one, other = (one.key.encode() for one in open_cosigners(tmp_path, "witness.example/w", with_mldsa=True))
    both = f'{ENGINE}[audit]\nwitness_quorum = 2\nwitnesses = ["{one}", "{other}"]\n'
    assert refused_keys(both) == ["audit.witness_quorum"], "two keys of one witness"
    asked = f'{ENGINE}[audit]\nwitnesses = ["{vkey} https://10.1.2.3:8440"]\n'
    parse_configuration(asked.encode(), FOLDER)
    assert refused_keys(f'{asked}[segments]\nclients = ["10.0.0.0/8"]\n') == ["segments.witnesses"]
    declared = f'{asked}[segments]\nclients = ["10.0.0.0/8"]\nwitnesses = ["10.1.2.3:8440"]\n'
    parse_configuration(declared.encode(), FOLDER)


def test_bodies_that_nobody_could_open_are_refused(site: Path) -> None:
    """Without an auditor's key; with a file that is none; with a key that FIPS does not approve."""
    assert refused_keys(f'{ENGINE}[audit]\nsealed_tenants = ["*"]\n') == ["audit.body_recipients"]
    public = X25519PrivateKey.generate().public_key()
    (site / "ada.pub").write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    sealed = '[audit]\nsealed_tenants = ["acme"]\nbody_recipients = ["ada.pub"]\n'
    configuration = parse_configuration(f"{ENGINE}{sealed}".encode(), site)
    assert find_missing_files(configuration) == []
    with_fips = parse_configuration(f"fips = true\n{ENGINE}{sealed}".encode(), site)
    assert [problem.key for problem in find_missing_files(with_fips)] == ["audit.body_recipients[0]"]
    for data in (b"", b"nonsense"):
        (site / "ada.pub").write_bytes(data)
        assert [problem.key for problem in find_missing_files(configuration)] == ["audit.body_recipients[0]"]
    (site / "ada.pub").unlink()
    assert [problem.key for problem in find_missing_files(configuration)] == ["audit.body_recipients[0]"]


def test_an_issuer_elsewhere_needs_its_arrow() -> None:
    """Where zones are named, its address is among them, or the firewall would refuse what the gateway must reach."""
    issuer = (
        '[[issuers]]\nname = "corp"\naudience = "casemate"\ntenant = "corp"\nissuer = "https://id.example"\n'
        'jwks_url = "https://id.example/keys"\njwks_address = "10.8.0.2:443"\nca_certificate = "ca.pem"\n'
    )
    site = f'{ENGINE}{issuer}[segments]\nclients = ["10.1.0.0/16"]\n'
    assert refused_keys(site) == ["segments.issuers"]
    parse_configuration(f'{site}issuers = ["10.8.0.2:443"]\n'.encode(), FOLDER)


DATABASE = '[policy]\ndatabase_url = "postgresql+psycopg://casemate@{}"\n'


def test_a_database_server_needs_its_arrow_where_zones_are_named() -> None:
    """Each by its address; this host's own addresses need no arrow, and without a sandbox a name says nothing of the network."""
    zones = '[segments]\nclients = ["10.1.0.0/16"]\n'
    for place in ("10.6.0.1/d", "[fd00::6]:5433/d", "db.site/d?hostaddr=10.6.0.1", "/d?host=127.0.0.1,10.6.0.1"):
        assert refused_keys(f"{ENGINE}{DATABASE.format(place)}{zones}") == ["segments.databases"]
    declared = f'{ENGINE}{DATABASE.format("[fd00::6]:5433/d")}{zones}databases = ["[fd00::6]:5433"]\n'
    name = f"{ENGINE}{DATABASE.format('db.site/d')}[confinement]\nenabled = false\n{zones}"
    for text in (declared, name, f"{ENGINE}{DATABASE.format('127.0.0.1/d')}{zones}"):
        parse_configuration(text.encode(), FOLDER)


def test_a_database_server_that_a_confined_process_cannot_reach_is_refused() -> None:
    """Policy looks no name up, sees no socket on a path, and connects to one port; without a sandbox it does all of that."""
    sandbox = "[confinement]\nenabled = false\n"
    for place in ("db.site/d", "/d", "/d?host=/run/postgresql", "/d?host=10.6.0.1,10.6.0.2&port=1,2"):
        text = f"{ENGINE}{DATABASE.format(place)}"
        assert refused_keys(text) == ["policy.database_url"]
        parse_configuration(f"{text}{sandbox}".encode(), FOLDER)
    parse_configuration(f"{ENGINE}{DATABASE.format('db.site:1/d?hostaddr=10.6.0.1')}".encode(), FOLDER)


def test_an_address_of_no_database_server_is_refused_without_its_password() -> None:
    """At the check, not at the start."""
    for url in ("mysql://a:canary@h/d", "postgresql://a:canary@h:99999/d", "postgresql://a:can[ary@h/d", "canary"):
        with pytest.raises(ConfigurationRejected) as refused:
            parse_configuration(f'{ENGINE}[policy]\ndatabase_url = "{url}"\n'.encode(), FOLDER)
        assert "policy.database_url" in str(refused.value)
        assert "can" not in str(refused.value).replace("cannot", "")
