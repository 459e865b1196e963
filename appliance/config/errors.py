"""What leaves `appliance.config`.

StartRefused (appliance.errors)
└── ConfigurationRejected   every problem found in one configuration, not only the first
"""

from dataclasses import dataclass

from appliance.errors import StartRefused


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with one key.

    Attributes:
        key: the path of the key as TOML users write it, `gateway.port` or `engines[0].model`; empty for the whole file.
        message: what was expected and what came.
        line: the line of the file, counted from 1, where that could be found.
    """

    key: str
    message: str
    line: int | None = None

    def describe(self, source: str) -> str:
        """`file:line: key: message`, without the parts that are unknown."""
        place = f"{source}:{self.line}" if self.line else source
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class ConfigurationRejected(StartRefused):
    """The configuration cannot be used. `problems` holds all that was found at this stage, in the order of the file."""

    def __init__(self, source: str, problems: list[Problem]) -> None:
        super().__init__("\n".join(problem.describe(source) for problem in problems))
        self.source = source
        self.problems = tuple(problems)
