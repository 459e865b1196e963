"""How long to wait before a process is started again. A value object over a clock that the caller reads."""

from appliance.supervisor.settings import SupervisorSettings


class Backoff:
    """Delays of one process: doubling from `restart_delay_s`, bounded, forgotten after a stable life."""

    def __init__(self, settings: SupervisorSettings) -> None:
        self._settings = settings
        self._failures = 0
        self._ready_at: float | None = None

    def note_ready(self, now: float) -> None:
        """The process became ready at `now` (monotonic seconds)."""
        self._ready_at = now

    def next_delay_s(self, now: float) -> float:
        """The process ended at `now`: the delay before its next start, in seconds."""
        if self._ready_at is not None and now - self._ready_at >= self._settings.stable_after_s:
            self._failures = 0
        self._ready_at = None
        delay = self._settings.restart_delay_s * 2.0 ** min(self._failures, 30)
        self._failures += 1
        return min(delay, self._settings.max_restart_delay_s)
