"""The engine's process: one thread, one loop around `runtime.engine`, the only process that imports torch.

    poll → take requests → step → tokens to the workers, counts to the auditor → poll …

`poll` does not wait while there is work. A step that hangs sends no heartbeat, and the supervisor ends the process.
Trust boundary: see `appliance.inference`.
"""

import time

import structlog

from appliance.errors import StartRefused
from appliance.inference.service import InferenceService
from appliance.inference.tickets import TicketGate
from appliance.messages.audit import TicketKey
from appliance.messages.engine import Cancel, EngineStatus, ModelFacts, Submit
from appliance.processes.polling import Event, LinkEnded, LinkOpened, PolledLink, PollingMember, Received
from runtime.engine.engine import Engine
from runtime.runner import build_runner

log = structlog.get_logger(__name__)

_IDLE_POLL_S = 0.05
_STATUS_INTERVAL_S = 0.2
