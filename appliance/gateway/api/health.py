"""`GET /health` and `GET /ready`: the truth, from what the processes last said themselves.

*Health* is whether every process that is needed is up and connected to this worker. *Ready* is whether an answer would come
now: a token really came out of every engine lately, the log takes records, policy is there. Silence counts as no: what was
said more than a second ago is not believed. The body of `/ready` is for holders of the metrics scope only.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from appliance.gateway.exchange import Exchange
from appliance.gateway.flow.desk import Desk
from appliance.gateway.models import Models
from appliance.messages.control import ProcessState, Role
from security.scopes import Scope

NEEDED: tuple[Role, ...] = ("policy", "engine", "auditor", "authority")
NOT_NEEDED: tuple[Role, ...] = ("compiler", "reader", "courier", "console")
"""Without a compiler constrained requests are refused, without a reader nobody reads the log, without a courier no witness is
asked, without a console people use the commands; all else is served."""
FRESH_S = 1.0
LIVE_STATES = ("ready", "draining")


@dataclass(frozen=True)
class Installation:
    """What `/ready` tells an operator of how this appliance runs."""

    mode: str
    lacks: Sequence[tuple[str, str]]
    """Protections that are missing, and what follows."""
    single_user: bool
    statement: str = ""
    """Digest of the running statement, which every answer names."""
    tpm: str = ""
    """Whether a TPM vouches for it, and by which key."""


class HealthEndpoints:
    """Both routes. `states` gives what the supervisor last said of all processes."""

    def __init__(
        self, desk: Desk, models: Models, states: Callable[[], Sequence[ProcessState]], installation: Installation
    ) -> None:
        self._desk = desk
        self._models = models
        self._states = states
        self._installation = installation

    async def health(self, exchange: Exchange) -> None:
        """200 while every needed process is up; the body names what is not."""
        down = self.find_down()
        status = "ok" if not down else "degraded"
        await exchange.respond(200 if not down else 503, {"status": status, "down": down})

    async def ready(self, exchange: Exchange) -> None:
        """200 if an answer would come now."""
        reasons = self.find_unready()
        body: dict[str, Any] = {"status": "ready" if not reasons else "not ready"}
        if exchange.principal is not None and Scope.METRICS_READ in exchange.principal.scopes:
            body |= self._details(reasons)
        await exchange.respond(200 if not reasons else 503, body)

    def find_down(self) -> list[str]:
        """Names of processes that are needed and not up, or that this worker cannot reach."""
        states = self._states()
        counted = [state for state in states if state.role not in NOT_NEEDED]
        down = {f"{state.role}/{state.instance}" for state in counted if state.state not in LIVE_STATES}
        seen = {state.role for state in states}
        down |= {role for role in NEEDED if states and role not in seen}
        links = {"auditor": self._desk.auditor.connected, "policy": self._desk.policy.connected}
        down |= {f"{role}/0" for role, connected in links.items() if not connected}
        served = {peer.facts.name for peer in self._desk.engines}
        down |= {f"engine of {model.name}" for model in self._models if model.name not in served}
        return sorted(down)

    def find_unready(self) -> list[str]:
        """Why an answer would not come now; empty if it would."""
        reasons = [f"{name} is down" for name in self.find_down()]
        now = time.monotonic()
        auditor, policy = self._desk.auditor, self._desk.policy
        if auditor.status is None or now - auditor.status_at > FRESH_S * 1.5:
            reasons.append("the auditor is silent")
        elif not auditor.status.can_append:
            reasons.append(f"the log takes no records: {auditor.status.detail}")
        if policy.status is None or now - policy.status_at > FRESH_S * 1.5:
            reasons.append("policy is silent")
        limit_ms = self._desk.settings.max_token_age_ms
        for peer in self._desk.engines:
            name = f"engine/{peer.instance}"
            if peer.status is None or now - peer.status_at > FRESH_S:
                reasons.append(f"{name} is silent")
            elif not peer.status.has_auditor:
                reasons.append(f"{name} has no auditor")
            elif peer.status.last_token_age_ms > limit_ms:
                reasons.append(f"no token came out of {name} for {peer.status.last_token_age_ms} ms")
        if self._desk.draining:
            reasons.append("the appliance is stopping")
        return reasons

    def _details(self, reasons: list[str]) -> dict[str, Any]:
        return {
            "reasons": reasons,
            "mode": self._installation.mode,
            "lacks": [{"name": name, "consequence": consequence} for name, consequence in self._installation.lacks],
            "single_user": self._installation.single_user,
            "statement": self._installation.statement,
            "tpm": self._installation.tpm,
            "processes": [
                {"role": state.role, "instance": state.instance, "state": state.state, "restarts": state.restarts}
                for state in self._states()
            ],
            "log": self._describe_log(),
            "engines": [
                {
                    "instance": peer.instance,
                    "model": peer.facts.name,
                    "build": peer.facts.engine_build,
                    "last_token_age_ms": None if peer.status is None else peer.status.last_token_age_ms,
                }
                for peer in self._desk.engines
            ],
        }

    def _describe_log(self) -> dict[str, Any]:
        """What the auditor last said; its alarms do not make the appliance unready, but a person should look."""
        status = self._desk.auditor.status
        if status is None:
            return {"alarms": ["the auditor has not said anything"]}
        reader = self._desk.reader.status
        return {
            "indexed": None if reader is None else reader.indexed,
            "reader": "is away" if reader is None else reader.detail,
            "records": status.tree_size,
            "under_checkpoint": status.checkpoint_size,
            "cosigned": status.cosigned_size,
            "cosigned_age_s": None if status.cosigned_age_s < 0 else status.cosigned_age_s,
            "free_bytes": status.free_bytes,
            "alarms": list(status.alarms),
        }
