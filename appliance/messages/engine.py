"""Gateway ↔ engine.

A `Submit` may come before its intent is durable: nothing of it leaves the engine until the auditor's ticket for it has come,
over their own link (`messages.audit.Ticket`). So a captured gateway cannot infer unlogged. Tokens of a step go to each worker in
one `StepTokens`: nearly all of them as three columns of bytes, the others one by one.
"""

from typing import Annotated

import msgspec

from appliance.messages.grammar import MAX_GRAMMAR_BYTES
from runtime.request import (
    MAX_CHOICES,
    PackedTokens,
    PromptDelivery,
    RequestSummary,
    SamplingParams,
    TokenDelivery,
)

MAX_RANKS = 16
MAX_PROMPT_BYTES = 4 * (1 << 20)
REQUEST_ID_BITS = 48
RequestIdField = Annotated[int, msgspec.Meta(ge=0, lt=1 << REQUEST_ID_BITS)]
"""A worker's own number of a request. The bound is what keeps workers apart: the engine's process puts theirs above it."""


class Submit(msgspec.Struct, frozen=True, array_like=True, tag="submit"):
    """Ask for a generation. `request_id` is the worker's own, unique on its link, and the intent names it."""

    request_id: RequestIdField
    prompt: Annotated[bytes, msgspec.Meta(max_length=MAX_PROMPT_BYTES)]
    """Token ids as little-endian uint32."""
    sampling: SamplingParams
    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_CHOICES)]
    namespace: Annotated[bytes, msgspec.Meta(max_length=32)]
    priority: Annotated[int, msgspec.Meta(ge=-100, le=100)]
    timeout_ms: Annotated[int, msgspec.Meta(ge=1)] | None
    """Time left until the client's deadline."""
    caches_output: bool = True
    """False where stop strings may still cut the output after its end: then a `Cancel` says how many tokens count."""
    grammar: Annotated[bytes, msgspec.Meta(max_length=MAX_GRAMMAR_BYTES)] = b""
    """What the output follows, from the compiler; empty: nothing."""
    wants_embedding: bool = False
    """The prompt's embedding comes with its delivery."""


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag="cancel", gc=False):
    """End a request, or one of its choices. As a whole, before its ticket has come, it is withdrawn, and answered by a refusal.

    `keep_tokens` is how many output tokens of that choice count: those after a stop string are not billed and never
    enter the prefix cache. None keeps what was delivered.
    """

    request_id: RequestIdField
    choice: int | None = None
    keep_tokens: int | None = None


class AbortIntent(msgspec.Struct, frozen=True, array_like=True, tag="abort", gc=False):
    """End the request of this intent, whichever worker submitted it. The gateway MUST have asked the auditor whose it is."""

    intent_index: Annotated[int, msgspec.Meta(ge=0)]


class FlushCache(msgspec.Struct, frozen=True, array_like=True, tag="flush", gc=False):
    """Forget all cached prefixes; what runs goes on."""


class RequestRefused(msgspec.Struct, frozen=True, array_like=True, tag="refused"):
    """The engine does not take a request: a ticket that does not hold, a prompt too long, a full queue; or it is withdrawn."""

    request_id: int
    code: str
    message: str
    parameter: str | None = None


class StepTokens(msgspec.Struct, frozen=True, array_like=True, tag="tokens"):
    """What one step gave to one worker, in this order: one message, unless logprobs of several prompts fill more."""

    prompts: list[PromptDelivery]
    tokens: list[TokenDelivery]
    """First and last tokens, and those with logprobs."""
    summaries: list[RequestSummary]
    plain: PackedTokens = PackedTokens()
    """All others. They come before `tokens`, which has nothing of the same choices."""


class RankFacts(msgspec.Struct, frozen=True, array_like=True):
    """One of the processes that share the model, as it stood when it was ready."""

    rank: Annotated[int, msgspec.Meta(ge=0, le=MAX_RANKS)]
    device: Annotated[str, msgspec.Meta(max_length=128)] = "cpu"
    """As its maker calls it."""
    gpu: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9-]{0,64}\Z")] = ""
    """Its UUID, as nvidia-smi has it; empty on a CPU."""
    memory: Annotated[dict[Annotated[str, msgspec.Meta(max_length=16)], int], msgspec.Meta(max_length=8)] = {}
    """Of the GPU, in bytes by use, see `runtime.runner.memory.MemoryTable.parts`; empty on a CPU."""


class ModelFacts(msgspec.Struct, frozen=True, array_like=True, tag="model"):
    """What a gateway must know of the served model to validate requests. Sent first on each link."""

    name: str
    vocab_size: int
    context_length: int
    """Most tokens of prompt and output together."""
    eos_token_ids: list[int]
    engine_build: str
    """Version and digest that the audit records name."""
    has_unscaled_cache: bool = False
    """The KV cache is e4m3, and nobody has measured scales for it."""
    ranks: Annotated[list[RankFacts], msgspec.Meta(max_length=MAX_RANKS)] = []
    """In their order; one where the model is not shared."""


class EngineStatus(msgspec.Struct, frozen=True, array_like=True, tag="status"):
    """Sent at least four times a second, between steps; its absence means that a step hangs."""

    last_token_age_ms: int
    """Since a token last came out of the model; the idle engine makes one itself from time to time."""
    num_running: int
    num_waiting: int
    num_pages: int
    num_free_pages: int
    num_evictable_pages: int
    generated_tokens: int
    prompt_tokens: int
    cached_tokens: int
    num_retractions: int
    has_auditor: bool
    num_steps: int = 0
    num_graph_steps: int = 0
    """Of these, the steps that ran in a graph."""
    captured_size: int = 0
    """Size of the graph that the last step ran in; 0: it ran outside of one."""
    busy_s: float = 0.0
    """Time that all steps took on the device."""
    occupancy: float = 0.0
    """Share of the time since the last status in which the device was busy with steps, 0 to 1."""
    num_verified: int = 0
    """Passes of the model that verified drafts of an answer."""
    num_proposed: int = 0
    """Drafts that they verified."""
    num_accepted: int = 0
    """Of these, the drafts that were the tokens chosen."""
    num_draft_steps: int = 0
    """Drafts made for each answer in the last step."""
    draft_prefill_s: float = 0.0
    """Of `busy_s`, what the draft head needed to read prompts, and what it reads late."""
    num_draft_prefill_tokens: int = 0
    """Prompt tokens that it read as they were computed."""
    num_late_entries: int = 0
    """Tokens that it read later."""
    num_lost_entries: int = 0
    """Tokens that it could read no more then."""
    num_awaiting_ticket: int = 0
    """Requests of all workers whose tickets have not come."""


GatewayToEngine = Submit | Cancel | AbortIntent | FlushCache
EngineToGateway = ModelFacts | StepTokens | RequestRefused | EngineStatus
