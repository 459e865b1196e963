"""Which errors mean "do not start", and what the supervisor is told then."""

from pathlib import Path

from appliance.config import ConfigurationRejected
from appliance.errors import StartRefused
from appliance.messages.control import Assign
from audit.errors import AuditMisconfigured
from runtime.errors import CheckpointRejected, EngineMisconfigured
from security.errors import SecurityMisconfigured

START_REFUSALS: tuple[type[Exception], ...] = (
    StartRefused,
    ConfigurationRejected,
    AuditMisconfigured,
    CheckpointRejected,
    EngineMisconfigured,
    SecurityMisconfigured,
)
"""Starting again would meet the same: the first start fails with the message, a later one is retried slowly."""


def configuration_directory(assignment: Assign) -> Path:
    """Folder from which the configuration's relative paths start."""
    return Path(assignment.configuration_dir)
