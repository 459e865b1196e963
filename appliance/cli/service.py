"""The appliance as a service that commands stop and start, and whose `/ready` is asked."""

import http.client
import shlex
import ssl
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

from security.errors import SwitchFailed

_POLL_S = 0.2


class CommandService:
    """Stops and starts by the site's own commands; `security.bundles.switching` says what is expected of them."""

    def __init__(self, stop: str, start: str, ready_url: str, ca: Path, *, stop_s: float, ready_s: float) -> None:
        """
        Args:
            stop_s: how long stopping may take, open requests included.
            ready_s: how long it may take from the start until `ready_url` says yes.
        """
        self._stop, self._start = shlex.split(stop), shlex.split(start)
        self._url = urlsplit(ready_url)
        self._ca = ca
        self._stop_s, self._ready_s = stop_s, ready_s
        self._ready_by = 0.0
        self._why_not = ""

    def stop(self) -> None:
        """Run the command that stops. Raises: SwitchFailed."""
        self._run(self._stop, self._stop_s)

    def start(self) -> None:
        """Run the command that starts; some return when the service is ready, others at once. Raises: SwitchFailed."""
        self._ready_by = time.monotonic() + self._ready_s
        self._run(self._start, self._ready_s)

    def wait_ready(self) -> None:
        """Poll until `/ready` says yes. Raises: SwitchFailed after the time allowed since the start."""
        while not self._is_ready():
            if time.monotonic() > self._ready_by:
                raise SwitchFailed(f"{self._url.geturl()}: not ready within {self._ready_s:g} s: {self._why_not}")
            time.sleep(_POLL_S)

    def _is_ready(self) -> bool:
        try:
            context = ssl.create_default_context(cafile=str(self._ca))
            connection = http.client.HTTPSConnection(
                self._url.hostname or "", self._url.port or 443, timeout=5, context=context
            )
            try:
                connection.request("GET", self._url.path or "/ready")
                status = connection.getresponse().status
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            self._why_not = str(error)
            return False
        self._why_not = f"it answers {status}"
        return status == http.HTTPStatus.OK

    def _run(self, command: list[str], timeout_s: float) -> None:
        try:
            done = subprocess.run(command, check=False, timeout=timeout_s)  # noqa: S603 - the operator's own
        except subprocess.TimeoutExpired:
            raise SwitchFailed(f"{shlex.join(command)}: not done within {timeout_s:g} s") from None
        except OSError as error:
            raise SwitchFailed(f"{shlex.join(command)}: {error}") from None
        if done.returncode:
            raise SwitchFailed(f"{shlex.join(command)}: ended with {done.returncode}")
