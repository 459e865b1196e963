"""Makes what the processes need before they start: the state directory's folders, TLS certificates, the credentials' key.

The keys of the log, of tickets and of tokens are not made here: each is made by the one process that holds it.
"""

import os
from pathlib import Path

from appliance.authority.credentials import provision_tls
from appliance.config import Configuration
from appliance.config.schema import model_paths_of
from appliance.console.identity import provision_console
from appliance.errors import StartRefused
from appliance.models.admission import admit_model
from appliance.policy.locations import DATABASE_FILE, load_credentials_key
from appliance.supervisor.confinement import verify_all_readable
from appliance.supervisor.ownership import settle_owners
from security.fips import find_modules, verify_fips

_FOLDERS = ("tls", "authority", "audit", "policy", str(Path(DATABASE_FILE).parent))
_OF_FOLDERS = 0o751
"""What a folder's permissions may be at most: some are entered by the users of other roles, see `ownership`."""


def provision(configuration: Configuration) -> None:
    """Create the folders, readable by us alone, and certificates where none are configured; check those that are,
    and whether every model may be loaded, so that one that may not is refused before anything is started.

    Raises: StartRefused or SecurityMisconfigured that name the path.
    """
    if configuration.fips:
        verify_fips(find_modules(), signing_algorithm=configuration.authority.signing_algorithm)
    for name in _FOLDERS:
        _make_folder(configuration.state_path / name)
    settle_owners(configuration)  # What a user before us left, so that its keys are ours to check.
    provision_tls(configuration)
    for engine in configuration.engines:
        for path in model_paths_of(engine):
            admit_model(configuration, path)
    if configuration.console.enabled:
        provision_console(configuration.state_path)
    load_credentials_key(configuration.state_path)  # Authority and policy read it, and neither may write there.
    settle_owners(configuration)
    verify_all_readable(configuration)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(path.stat().st_mode & _OF_FOLDERS)
    except OSError as error:
        raise StartRefused(
            f"state_dir: {path} cannot be made, or not be made private, by uid {os.geteuid()}: {error.strerror}"
        ) from error
