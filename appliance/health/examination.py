"""The whole examination."""

from appliance.config import Configuration
from appliance.health.demands import examine_demands
from appliance.health.finding import Finding
from appliance.health.machine import examine_machine


def examine(configuration: Configuration) -> list[Finding]:
    """Look at the machine, and at what the configuration needs of it."""
    return [*examine_machine(configuration.state_path, configuration.tpm), *examine_demands(configuration)]
