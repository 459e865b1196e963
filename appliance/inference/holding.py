"""Requests that wait for their tickets. They may compute meanwhile; whatever they give is held here, and nobody sees it.

A worker sends its request while the auditor makes the intent durable. A captured one might send requests that it never records,
so what may be done for it without a ticket is bounded, for each worker by itself:

| of one worker | bound | beyond it a request |
|---|---|---|
| requests held, with prompts and grammars | `max_requests`, MAX_HELD_BYTES | is refused, as by any queue that is full |
| requests that compute | MAX_COMPUTING, `max_prompt_tokens` together | waits aside: it computes when its ticket has come |
| output tokens held, all together | `max_output_tokens` | is stopped, and computes anew when its ticket has come |

Logprobs of a prompt are large, so a request for them always waits aside. A request is held until its ticket comes, its time is
over, or its worker withdraws it; and no longer than that worker and the auditor are there.

Computed pages enter the prefix tree of the request's namespace as always, also those of a request that never gets its ticket:
a namespace is one tenant's, nobody else can find them, and they are the first to be evicted once nobody uses them.
"""

from dataclasses import dataclass, field
from enum import Enum, auto

from appliance.inference.outgoing import Delivery
from appliance.messages.engine import Cancel, Submit
from runtime.errors import QueueFull
from runtime.request import PromptDelivery, RequestSummary, TokenDelivery

MAX_HELD_BYTES = 64 << 20
MAX_COMPUTING = 64
MAX_HELD_TOKENS = 4096
_OVERHEAD_BYTES = 4096
"""More than a request takes beside its prompt and its grammar."""


@dataclass(frozen=True, slots=True)
class HoldLimits:
    """What one worker may have without tickets."""

    wait_s: float = 60.0
    """How long a request waits for its ticket."""
    max_requests: int = 1024
    max_prompt_tokens: int = 1 << 14
    """Of the requests that compute."""
    max_output_tokens: int = MAX_HELD_TOKENS
    """Less than a worker lets wait for one client: what was held arrives there at once."""


@dataclass(slots=True)
class Untold:
    """Tokens that the engine counts and nobody may hear of: what a request without a record did must not show in statistics."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0

    def add(self, delivery: Delivery) -> None:
        """Count what a delivery tells of."""
        if isinstance(delivery, PromptDelivery):
            self.prompt_tokens += delivery.prompt_tokens
            self.cached_tokens += delivery.cached_tokens
        elif isinstance(delivery, TokenDelivery):
            self.output_tokens += len(delivery.token_ids)

    def subtract(self, told: "Untold") -> None:
        """That much has been told."""
        self.prompt_tokens -= told.prompt_tokens
        self.cached_tokens -= told.cached_tokens
        self.output_tokens -= told.output_tokens


class Phase(Enum):
    """Where a held request is."""

    ASIDE = auto()
    """Not in the engine."""
    COMPUTING = auto()
    ENDED = auto()
    """No longer in the engine: all it gave is held."""
    STOPPING = auto()
    """Cancelled here. What still comes of it counts for nothing; its summary is the last."""


@dataclass(slots=True, eq=False)
class Hold:
    """One request that waits for its ticket."""

    submit: Submit
    arrived_at: float
    phase: Phase = Phase.ASIDE
    cancels: dict[int | None, Cancel] = field(default_factory=dict)
    """What its worker said meanwhile, by choice."""
    output: list[Delivery] = field(default_factory=list)
    untold: Untold = field(default_factory=Untold)
    has_spoken: bool = False
    """The engine gave something of it: from now on there may be plain tokens."""

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return len(self.submit.prompt) // 4

    @property
    def num_bytes(self) -> int:
        """What it takes while it waits, at most."""
        return _OVERHEAD_BYTES + len(self.submit.prompt) + len(self.submit.grammar)

    def note_cancel(self, message: Cancel) -> None:
        """Its worker cancels what is not in the engine now; the last word on each choice counts."""
        if message.choice is None or 0 <= message.choice < self.submit.n:
            self.cancels[message.choice] = message


class Holding:
    """What one worker has without tickets."""

    def __init__(self, limits: HoldLimits) -> None:
        self._limits = limits
        self._num_requests = 0
        self._num_bytes = 0
        self._num_computing = 0
        self._num_prompt_tokens = 0
        self._num_output_tokens = 0
        self._num_spoken = 0

    @property
    def has_spoken(self) -> bool:
        """Whether plain tokens of a step may be some that are to be held."""
        return self._num_spoken > 0

    def admit(self, hold: Hold) -> None:
        """Let a request wait. Raises: QueueFull."""
        num_bytes = self._num_bytes + hold.num_bytes
        if self._num_requests >= self._limits.max_requests or num_bytes > MAX_HELD_BYTES:
            raise QueueFull(f"{self._num_requests} requests of this worker wait for their intents to be recorded")
        self._num_requests += 1
        self._num_bytes = num_bytes

    def may_compute(self, hold: Hold) -> bool:
        """Whether a request that waits aside may compute before its ticket comes."""
        num_prompt_tokens = self._num_prompt_tokens + hold.num_prompt_tokens
        return (
            hold.submit.sampling.prompt_logprobs < 0
            and self._num_computing < MAX_COMPUTING
            and num_prompt_tokens <= self._limits.max_prompt_tokens
        )

    def compute(self, hold: Hold) -> None:
        """The engine has taken it."""
        hold.phase = Phase.COMPUTING
        self._num_computing += 1
        self._num_prompt_tokens += hold.num_prompt_tokens

    def keep(self, hold: Hold, delivery: Delivery) -> bool:
        """Hold what the engine gave; False where that is too much, and the caller MUST stop the request."""
        if not hold.has_spoken:
            hold.has_spoken = True
            self._num_spoken += 1
        hold.output.append(delivery)
        hold.untold.add(delivery)
        if isinstance(delivery, TokenDelivery):
            self._num_output_tokens += len(delivery.token_ids)
        if isinstance(delivery, RequestSummary):
            hold.phase = Phase.ENDED
        return self._num_output_tokens <= self._limits.max_output_tokens

    def stop(self, hold: Hold) -> None:
        """Forget what is held of it; until `stopped` more may come."""
        self._num_output_tokens -= hold.untold.output_tokens
        hold.output, hold.untold = [], Untold()
        hold.phase = Phase.STOPPING

    def stopped(self, hold: Hold) -> None:
        """The engine has nothing more of it: it waits aside."""
        self._num_computing -= 1
        self._num_prompt_tokens -= hold.num_prompt_tokens
        self._num_spoken -= hold.has_spoken
        hold.has_spoken = False
        hold.phase = Phase.ASIDE

    def release(self, hold: Hold) -> None:
        """It waits no longer."""
        self._num_requests -= 1
        self._num_bytes -= hold.num_bytes
        if hold.phase is not Phase.ASIDE:
            self._num_output_tokens -= hold.untold.output_tokens
            self.stopped(hold)
