"""Where spans may go: an address on site, over TLS unless it is this host, and only along a declared arrow."""

import msgspec
import pytest

from appliance.config.schema import Configuration
from appliance.config.together import find_conflicts
from appliance.telemetry.settings import TelemetrySettings, parse_collector
from runtime.settings import EngineSettings
from security.segmentation.settings import SegmentsSettings

ENGINES = (EngineSettings(model_path="model"),)


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("https://10.5.0.9:4318", "10.5.0.9:4318"),
        ("https://10.5.0.9/otlp", "10.5.0.9:443"),
        ("https://[fd00::9]:4318", "[fd00::9]:4318"),
        ("http://127.0.0.1:4318", "127.0.0.1:4318"),
    ],
)
def test_addresses_are_read(endpoint: str, expected: str) -> None:
    """As `segments.collectors` writes them."""
    assert parse_collector(endpoint).endpoint == expected


@pytest.mark.parametrize(
    ("endpoint", "word"),
    [
        ("https://collector.example:4318", "not a name"),
        ("http://10.5.0.9:4318", "without TLS"),
        ("https://user@10.5.0.9", "expected http"),
        ("https://10.5.0.9:99999", "a port"),
        ("ftp://10.5.0.9", "expected http"),
        ("10.5.0.9:4318", "not a name"),
    ],
)
def test_what_is_no_collector_is_named(endpoint: str, word: str) -> None:
    """The start refuses, with the key and what is wrong."""
    problems = find_conflicts(Configuration(engines=ENGINES, telemetry=TelemetrySettings(otlp_endpoint=endpoint)))
    (problem,) = [one for one in problems if one.key == "telemetry.otlp_endpoint"]
    assert word in problem.message


def test_a_collector_outside_the_segments_is_refused() -> None:
    """Where segments are declared, every arrow is."""
    telemetry = TelemetrySettings(otlp_endpoint="https://10.5.0.9:4318")
    for collectors, expected in (((), ["segments.collectors"]), (("10.5.0.9:4318",), [])):
        segments = SegmentsSettings(clients=("10.1.0.0/16",), collectors=collectors)
        problems = find_conflicts(Configuration(engines=ENGINES, telemetry=telemetry, segments=segments))
        assert [one.key for one in problems if one.key.startswith("segments")] == expected


def test_every_key_can_be_set() -> None:
    """A bound on a key that may also be absent is easily put where no value passes: the schema of all of them can be made."""
    assert msgspec.json.schema(Configuration)["$defs"]
