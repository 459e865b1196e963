"""The appliance as a service that commands stop and start, and whose `/ready` is asked."""

import http.client
import shlex
import ssl
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

from security.errors import SwitchFailed

_COMMAND_TIMEOUT_S = 300.0
_POLL_S = 0.2


class CommandService:
    """Stops and starts by the site's own commands; `security.bundles.switching` says what is expected of them."""

    def __init__(self, stop: str, start: str, ready_url: str, ca: Path, timeout_s: float) -> None:
        self._stop, self._start = shlex.split(stop), shlex.split(start)
        self._url = urlsplit(ready_url)
        self._ca = ca
        self._timeout_s = timeout_s

    def stop(self) -> None:
        """Run the command that stops. Raises: SwitchFailed."""
        self._run(self._stop)

    def start(self) -> None:
        """Run the command that starts. Raises: SwitchFailed."""
        self._run(self._start)

    def wait_ready(self) -> None:
        """Poll until `/ready` says yes. Raises: SwitchFailed after the time allowed."""
        deadline = time.monotonic() + self._timeout_s
        while time.monotonic() < deadline:
            if self._is_ready():
                return
            time.sleep(_POLL_S)
        raise SwitchFailed(f"{self._url.geturl()}: not ready within {self._timeout_s:g} s")

    def _is_ready(self) -> bool:
        try:
            context = ssl.create_default_context(cafile=str(self._ca))
            connection = http.client.HTTPSConnection(
                self._url.hostname or "", self._url.port or 443, timeout=5, context=context
            )
            try:
                connection.request("GET", self._url.path or "/ready")
                return connection.getresponse().status == http.HTTPStatus.OK
            finally:
                connection.close()
        except (OSError, http.client.HTTPException):
            return False

    def _run(self, command: list[str]) -> None:
        try:
            done = subprocess.run(command, check=False, timeout=_COMMAND_TIMEOUT_S)  # noqa: S603 - the operator's own
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SwitchFailed(f"{shlex.join(command)}: {error}") from None
        if done.returncode:
            raise SwitchFailed(f"{shlex.join(command)}: ended with {done.returncode}")
