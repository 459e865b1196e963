"""Rations: how many records a minute those may cause who have not shown who they are, and one client by asking for tokens.

Without them strangers could fill the disk. What is beyond the ration is counted and told in one record a minute; nothing that an
authenticated request needs is rationed. Gateways and authority already sum up by source; this is the bound behind them.

| kinds | counted by |
|---|---|
| token_rejected, token_refused, user_sign_in_failed | all together |
| token_issued | client; what is refused here is not issued |
"""

from collections import Counter

from appliance.auditor.ledger import Clock
from audit.entry import Json

WINDOW_S = 60.0
STRANGERS = frozenset(("token_rejected", "token_refused", "user_sign_in_failed"))


class Rations:
    """Counts of the current minute."""

    def __init__(self, clock: Clock, strangers_a_minute: int, tokens_a_minute: int) -> None:
        self._clock = clock
        self._strangers_a_minute = strangers_a_minute
        self._tokens_a_minute = tokens_a_minute
        self._window_ends_s = clock.monotonic_s() + WINDOW_S
        self._taken: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()

    def take(self, kind: str, event: Json) -> bool:
        """Whether an event of this kind may become a record now; one that may not is counted."""
        if kind in STRANGERS:
            key, limit = "strangers", self._strangers_a_minute
        elif kind == "token_issued":
            key, limit = f"client {_client_of(event)}", self._tokens_a_minute
        else:
            return True
        if self._taken[key] < limit:
            self._taken[key] += 1
            return True
        self._left_out[kind] += _num_times(event)
        return False

    def close_window(self, *, at_once: bool = False) -> dict[str, str | int] | None:
        """What the minute that ended left out, by kind; None where nothing was, or it has not ended."""
        now_s = self._clock.monotonic_s()
        if now_s < self._window_ends_s and not at_once:
            return None
        self._window_ends_s = now_s + WINDOW_S
        left_out, self._left_out = self._left_out, Counter()
        self._taken.clear()
        return dict(sorted(left_out.items())) if left_out else None


def _client_of(event: Json) -> str:
    actor = event.get("actor")
    return str(actor.get("app_uid", "")) if isinstance(actor, dict) else ""


def _num_times(event: Json) -> int:
    """How many attempts the record stands for."""
    num_times = event["unmapped"]["casemate"].get("num_times", 1)
    return num_times if isinstance(num_times, int) and num_times > 0 else 1
