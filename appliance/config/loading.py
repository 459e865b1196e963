"""The way from bytes to a `Configuration` that may be started: parse, validate alone, validate together.

Every process parses the same bytes, which the supervisor read once. Nothing here writes, and only `load_configuration`
reads a file; provisioning and starting come after, elsewhere.
"""

from pathlib import Path

from appliance.config.disk import find_missing_files
from appliance.config.errors import ConfigurationRejected, Problem
from appliance.config.locations import find_lines, nearest_line
from appliance.config.reading import MAX_CONFIGURATION_BYTES, Reader, UnreadableToml, decode_toml
from appliance.config.schema import Configuration
from appliance.config.together import find_conflicts

DEFAULT_NAME = "casemate.toml"


def parse_configuration(data: bytes, directory: Path, source: str = DEFAULT_NAME) -> Configuration:
    """Parse an untrusted configuration.

    Args:
        data: TOML in UTF-8, at most MAX_CONFIGURATION_BYTES.
        directory: where relative paths start from: the folder of the file.
        source: the file's name in messages.
    Raises: ConfigurationRejected with every problem found at the first stage that found one; nothing else.
    """
    try:
        text, table = decode_toml(data)
    except UnreadableToml as error:
        raise ConfigurationRejected(source, [error.problem]) from None
    lines = find_lines(text)
    reader = Reader(directory, lines, Configuration)
    configuration = reader.read(Configuration, table)
    if configuration is None:
        raise ConfigurationRejected(source, sorted(reader.problems, key=lambda problem: problem.line or 0))
    if conflicts := find_conflicts(configuration):
        raise ConfigurationRejected(
            source, [Problem(one.key, one.message, nearest_line(lines, one.key)) for one in conflicts]
        )
    return configuration


def load_configuration(path: Path) -> tuple[Configuration, bytes]:
    """Read and parse a file, and look for the files that it names.

    Returns: the configuration, and the bytes it was parsed from, which every process is handed.
    Raises: ConfigurationRejected.
    """
    source = str(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIGURATION_BYTES + 1)
    except OSError as error:
        raise ConfigurationRejected(source, [Problem("", f"cannot be read: {error.strerror}")]) from None
    configuration = parse_configuration(data, path.absolute().parent, source)
    if missing := find_missing_files(configuration):
        lines = find_lines(data.decode())
        raise ConfigurationRejected(
            source, [Problem(one.key, one.message, nearest_line(lines, one.key)) for one in missing]
        )
    return configuration, data
