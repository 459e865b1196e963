"""Reconciliation: each minute, what the gateways said, what the engines said and what the auditor recorded are laid side by side.

Three parties count independently: the auditor its own intents and outcomes, the gateways the tokens in their outcomes, the
engines what they computed for each ticket. A gateway that keeps tokens back or makes them up differs from the engine; an engine
that computes for somebody without an intent tells counts that belong to nothing, and one that was asked past the gateway tells
of tickets that do not hold. The result is a record (`log_reconciled`) each minute, also of a minute in which nothing happened: so
the log shows that somebody counted. A difference is an alarm.
"""

from collections import Counter

from appliance.auditor.ledger import Clock
from audit.entry import Json

INTERVAL_S = 60.0
_COMPARED = ("agree", "cut", "differ", "unreported", "engine_only")
_COUNTS = (
    "num_intents", "num_outcomes", "num_counted", "num_late", "num_late_differ", "num_unexpected", "num_missing", "num_bad_tickets",
    "gateway_prompt_tokens", "gateway_output_tokens", "engine_prompt_tokens", "engine_output_tokens",
    "engine_delivered_tokens", *(f"num_{name}" for name in _COMPARED),
)  # fmt: skip


class Reconciliation:
    """Counts since the last reconciliation."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started_s = clock.monotonic_s()
        self._counts: Counter[str] = Counter()
        self._missing: set[int] = set()
        """Intents whose outcomes tell tokens that no engine has counted."""
        self._bad_ticket = ""
        self.num_differences = 0
        """Since the auditor's start."""
        self.alarm = ""
        """What the last reconciliation found; empty where all agreed."""

    def note_intent(self) -> None:
        """An intent is durable."""
        self._counts["num_intents"] += 1

    def note_outcome(self, event: Json) -> None:
        """An outcome is durable, with what the engine said beside what the gateway said."""
        counts = self._counts
        own = event["unmapped"]["casemate"]
        counts["num_outcomes"] += 1
        told = event.get("message_context")
        counts[f"num_{own['counts']}"] += 1
        if own["counts"] != "engine_only" and isinstance(told, dict):
            counts["gateway_prompt_tokens"] += _integer(told.get("prompt_tokens"))
            counts["gateway_output_tokens"] += _integer(told.get("completion_tokens"))
            # A request that ended before it reached an engine has no count; one with tokens must have come from somewhere.
            if own["counts"] == "unreported" and _integer(told.get("completion_tokens")) > 0:
                self._missing.add(own["intent_index"])
        if "engine" in own:
            self._note_engine(own["engine"])

    def note_late(self, event: Json) -> None:
        """An engine's counts came after the outcome, were compared with it, and settle it and no other."""
        own = event["unmapped"]["casemate"]
        self._counts["num_late"] += 1
        self._counts["num_late_differ"] += own["counts"] == "differ"
        self._missing.discard(own["intent_index"])
        self._note_engine(own["engine"])

    def note_unexpected(self) -> None:
        """An engine told counts for what is no open intent of its own."""
        self._counts["num_unexpected"] += 1

    def note_bad_tickets(self, num_refused: int, reason: str) -> None:
        """An engine was asked by requests without a ticket that holds."""
        self._counts["num_bad_tickets"] += num_refused
        self._bad_ticket = reason

    def close_minute(self, num_open: int, *, at_once: bool = False) -> dict[str, str | int] | None:
        """The facts of the minute that ended, or of what there is of it; None where it has not ended."""
        now_s = self._clock.monotonic_s()
        if now_s - self._started_s < INTERVAL_S and not at_once:
            return None
        counts, self._counts = self._counts, Counter()
        counts["num_missing"] = len(self._missing)
        self._missing.clear()
        period_ms = round((now_s - self._started_s) * 1000)
        self._started_s = now_s
        differences = self._find_differences(counts)
        self.alarm = "; ".join(differences)
        self.num_differences += len(differences)
        facts: dict[str, str | int] = {name: counts[name] for name in _COUNTS}
        return facts | {"num_open": num_open, "period_ms": period_ms, "result": "differ" if differences else "agree"}

    def _note_engine(self, engine: Json) -> None:
        counts = self._counts
        counts["num_counted"] += 1
        counts["engine_prompt_tokens"] += engine["prompt_tokens"]
        counts["engine_output_tokens"] += engine["output_tokens"]
        counts["engine_delivered_tokens"] += engine["delivered_tokens"]

    def _find_differences(self, counts: Counter[str]) -> list[str]:
        found = []
        if num_differ := counts["num_differ"] + counts["num_late_differ"]:
            found.append(f"{num_differ} outcomes whose gateway and engine count different tokens")
        if counts["num_missing"]:
            found.append(f"{counts['num_missing']} outcomes with tokens for which no engine told counts")
        if counts["num_unexpected"]:
            found.append(f"{counts['num_unexpected']} counts by engines for requests that nobody recorded")
        if counts["num_bad_tickets"]:
            found.append(
                f"{counts['num_bad_tickets']} requests to engines without a ticket that holds ({self._bad_ticket})"
            )
        return found


def _integer(value: object) -> int:
    return value if isinstance(value, int) else 0
