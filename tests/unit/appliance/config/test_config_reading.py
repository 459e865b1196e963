"""Strictness of the configuration's parser: nothing unknown, nothing ignored, every problem named."""

import contextlib
import math
import string
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from appliance.config import ConfigurationRejected, parse_configuration
from appliance.config.reading import MAX_CONFIGURATION_BYTES
from tests.support.controls import control

FOLDER = Path("/srv/casemate")
ENGINE = '[[engines]]\nmodel_path = "models/one"\n'


def problems_of(text: str | bytes) -> dict[str, str]:
    """What is refused, by key."""
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(ConfigurationRejected) as refusal:
        parse_configuration(data, FOLDER)
    return {problem.key: problem.message for problem in refusal.value.problems}


def test_smallest_file_that_works_names_one_model() -> None:
    """Everything but the model has a safe default."""
    configuration = parse_configuration(ENGINE.encode(), FOLDER)
    assert configuration.mode == "development"
    assert configuration.gateway.host == "127.0.0.1"
    assert configuration.engines[0].model_path == "/srv/casemate/models/one"


@control("3.4.2", "3.13.2", "AU-12(3)", "CM-6", "CM-6(1)")
def test_unknown_key_is_refused_with_the_nearest_known_one() -> None:
    """A slip of the pen is never a default that nobody asked for."""
    assert problems_of(f"[gateway]\nworkrs = 2\n{ENGINE}") == {
        "gateway.workrs": "unknown key in [gateway]; the nearest known key is gateway.workers"
    }


def test_unknown_key_like_no_other_gets_no_bad_advice() -> None:
    """Somebody who knows another server's options is not sent to one that means something else."""
    problems = problems_of(f"{ENGINE}page_size = 32\n")
    assert problems["engines[0].page_size"].endswith("`casemate config explain` lists those that there are")


def test_unknown_section_is_refused() -> None:
    """A whole section that nobody reads is not ignored either."""
    assert "the nearest known key is gateway" in problems_of(f"{ENGINE}[gatway]\nport = 1\n")["gatway"]


def test_key_of_another_section_is_refused_with_where_it_belongs() -> None:
    """`state_dir` under `[gateway]` would not do what its writer thinks."""
    assert problems_of(f'[gateway]\nstate_dir = "x"\n{ENGINE}')["gateway.state_dir"].endswith(
        "belongs elsewhere: state_dir"
    )


def test_unknown_key_of_an_engine_names_which_engine() -> None:
    """With several engines the message says which."""
    assert set(problems_of(f"{ENGINE}{ENGINE}modle = 1\n")) == {"engines[1].modle"}


@pytest.mark.parametrize(
    ("text", "key", "expected", "got"),
    [
        ('[gateway]\nport = "8443"', "gateway.port", "integer, from 0 to 65535", 'got "8443"'),
        ("[gateway]\nport = true", "gateway.port", "integer", "got true"),
        ("[gateway]\nport = 65536", "gateway.port", "from 0 to 65535", "got 65536"),
        ("[gateway]\nport = 1.0", "gateway.port", "integer", "got 1.0"),
        ("[supervisor]\nrestart_delay_s = nan", "supervisor.restart_delay_s", "more than 0", "got nan"),
        ("[supervisor]\nrestart_delay_s = inf", "supervisor.restart_delay_s", "at most 60", "got inf"),
        ('mode = "prod"', "mode", '"development" or "production"', 'got "prod"'),
        ("gateway = 3", "gateway", "a table", "got 3"),
        ("state_dir = 2026-01-01", "state_dir", "text", "got datetime.date"),
        ("[tls]\nextra_names = ['a', 3]", "tls.extra_names[1]", "list of text", "got ['a', 3]"),
    ],
)
def test_wrong_value_is_refused_with_what_was_expected_and_what_came(
    text: str, key: str, expected: str, got: str
) -> None:
    """Types are not converted and ranges are not clamped."""
    engine_last = f"{text}\n{ENGINE}"
    message = problems_of(engine_last)[key]
    assert expected in message
    assert got in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "required and missing; expected [[engines]] tables"),
        ("engines = []", "expected one or more tables, each headed [[engines]]; got none"),
        ('[engines]\nmodel_path = "x"', "expected one or more tables, each headed [[engines]]; got one table"),
        ("engines = [1]", "expected one or more tables, each headed [[engines]]; got a list"),
    ],
)
def test_engines_are_an_array_of_tables_with_at_least_one(text: str, message: str) -> None:
    """Without an engine there is nothing to serve; the likely mistake is a single bracket."""
    assert message in next(iter(problems_of(text).values()))


def test_missing_required_key_is_named() -> None:
    """An engine without a model names the key that is missing."""
    assert problems_of("[[engines]]\n")["engines[0].model_path"].startswith("required and missing; expected text")


def test_all_problems_are_told_at_once_with_their_lines() -> None:
    """An operator mends a file in one go, not one message at a time."""
    text = f"[gateway]\nport = -1\n\n[authority]\nprot = 1\n{ENGINE}dtype = 'fp3'\n"
    with pytest.raises(ConfigurationRejected) as refusal:
        parse_configuration(text.encode(), FOLDER, "site.toml")
    assert [(problem.key, problem.line) for problem in refusal.value.problems] == [
        ("gateway.port", 2),
        ("authority.prot", 5),
        ("engines[0].dtype", 8),
    ]
    assert str(refusal.value).startswith("site.toml:2: gateway.port: expected")


def test_relative_paths_start_from_the_files_folder_and_absolute_ones_stay() -> None:
    """The current folder of a process is of no importance, for defaults as well."""
    text = f'{ENGINE}[tls]\ncertificate = "../pki/c.pem"\nkey = "/etc/casemate/k.pem"\n'
    configuration = parse_configuration(text.encode(), FOLDER)
    assert configuration.state_dir == "/srv/casemate/state"
    assert configuration.tls.certificate == "/srv/casemate/../pki/c.pem"
    assert configuration.tls.key == "/etc/casemate/k.pem"


def test_long_values_are_cut_in_messages() -> None:
    """A message stays readable whatever came."""
    assert len(problems_of(f'mode = "{"x" * 5000}"\n{ENGINE}')["mode"]) < 200


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a = \xff", "expected UTF-8"),
        (b"[gateway\nport = 1", "not TOML"),
        (b"x = 1\nx = 2", "not TOML"),
        (b"#" * (MAX_CONFIGURATION_BYTES + 1), "expected at most 1048576 bytes"),
        (b"x = " + b"[" * 100_000, "not TOML"),
    ],
)
def test_what_is_no_toml_document_is_refused_whole(data: bytes, message: str) -> None:
    """Size, encoding, syntax and depth are bounded before any key is looked at."""
    assert message in problems_of(data)[""]


@given(st.binary(max_size=300))
@example(b"engines = 1")
@example(b"[[engines]]\nmodel_path='x\\u0000'")
def test_nothing_but_the_family_escapes_for_any_bytes(data: bytes) -> None:
    """Any bytes are a configuration or are refused by our own error."""
    with contextlib.suppress(ConfigurationRejected):
        parse_configuration(data, FOLDER)


_SCALARS = st.one_of(
    st.booleans().map(lambda value: str(value).lower()),
    st.integers(-(2**70), 2**70).map(str),
    st.sampled_from(
        ["nan", "inf", "1e300", "0.5", "2026-01-01", "07:30:00", '""', '"x"', "[]", "[[]]", "{}", "{a = 1}"]
    ),
)
_NAMES = st.sampled_from(
    [
        "mode",
        "state_dir",
        "waivers",
        "gateway",
        "port",
        "host",
        "tls",
        "engines",
        "model_path",
        "dtype",
        "key",
        "issuer",
    ]
)


@given(
    st.lists(
        st.tuples(st.sampled_from(["", "[gateway]", "[tls]", "[[engines]]", "[engines]"]), _NAMES, _SCALARS), max_size=8
    )
)
def test_nothing_but_the_family_escapes_for_any_values(lines: list[tuple[str, str, str]]) -> None:
    """Well-formed TOML with any value in any place is a configuration or is refused by our own error."""
    text = "\n".join(f"{header}\n{name} = {value}" for header, name, value in lines)
    with contextlib.suppress(ConfigurationRejected):
        parse_configuration(text.encode(), FOLDER)


@given(
    port=st.integers(0, 65535),
    seconds=st.floats(0.001, 60, allow_nan=False),
    name=st.text(string.ascii_letters, min_size=1),
)
def test_what_is_in_range_is_taken_as_written(port: int, seconds: float, name: str) -> None:
    """No value is rounded, clamped or converted."""
    text = (
        f"[gateway]\nport = {port}\n[authority]\nport = 0\n[supervisor]\nrestart_delay_s = {seconds}\n"
        f"max_restart_delay_s = 60\n[[engines]]\nmodel_path = '{name}'\n"
    )
    configuration = parse_configuration(text.encode(), FOLDER)
    assert configuration.gateway.port == port
    assert math.isclose(configuration.supervisor.restart_delay_s, seconds, rel_tol=0, abs_tol=0)
    assert configuration.engines[0].model_path == f"/srv/casemate/{name}"
