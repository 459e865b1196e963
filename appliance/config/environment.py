"""The environment variables that Casemate reads: CASEMATE_CONFIG, the file to use; and NOTIFY_SOCKET, where a service manager that
started us listens.

Anything else would be a second configuration that nobody sees. What other programs' variables are passed on to our processes
is in `child_environment`.
"""

import os
from pathlib import Path

from appliance.config.loading import DEFAULT_NAME

VARIABLE = "CASEMATE_CONFIG"


def find_configuration_file(named: str | None = None) -> Path | None:
    """The file to use: the one that is named, else CASEMATE_CONFIG's, else `casemate.toml` here if there is one."""
    if chosen := named or os.environ.get(VARIABLE):
        return Path(chosen)
    here = Path(DEFAULT_NAME)
    return here if here.is_file() else None


def find_notify_socket() -> str | None:
    """Where systemd wants to hear that we are ready (sd_notify(3)); None where nobody does."""
    return os.environ.get("NOTIFY_SOCKET")
