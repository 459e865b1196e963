"""Makes what the processes need before they start: the state directory's folders, TLS certificates, the credentials' key.

The keys of the log, of tickets and of tokens are not made here: each is made by the one process that holds it.
"""

from pathlib import Path

from appliance.authority.credentials import provision_tls
from appliance.config import Configuration
from appliance.config.schema import model_paths_of
from appliance.console.identity import provision_console
from appliance.errors import StartRefused
from appliance.models.admission import admit_model
from appliance.policy.locations import DATABASE_FILE, load_credentials_key
from security.fips import find_modules, verify_fips

_FOLDERS = ("tls", "authority", "audit", "policy", str(Path(DATABASE_FILE).parent))


def provision(configuration: Configuration) -> None:
    """Create the folders, readable by us alone, and certificates where none are configured; check those that are,
    and whether every model may be loaded, so that one that may not is refused before anything is started.

    Raises: StartRefused or SecurityMisconfigured that name the path.
    """
    if configuration.fips:
        verify_fips(find_modules(), signing_algorithm=configuration.authority.signing_algorithm)
    for name in _FOLDERS:
        _make_folder(configuration.state_path / name)
    provision_tls(configuration)
    for engine in configuration.engines:
        for path in model_paths_of(engine):
            admit_model(configuration, path)
    if configuration.console.enabled:
        provision_console(configuration.state_path)
    load_credentials_key(configuration.state_path)  # Authority and policy read it, and neither may write there.


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        raise StartRefused(f"state_dir: {path} cannot be made: {error.strerror}") from error
