"""The way from bytes to a `Configuration` that may be started: parse, validate alone, validate together.

Every process parses the same bytes, which the supervisor read once (`disk`). Nothing here reads or writes a file; provisioning
and starting come after, elsewhere.
"""

from pathlib import Path

from appliance.config.errors import ConfigurationRejected, Problem
from appliance.config.locations import find_lines, nearest_line
from appliance.config.reading import Reader, UnreadableToml, decode_toml
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
