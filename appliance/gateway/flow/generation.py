"""One prompt of an answer: its reservation, its intent, its place in the engine, its choices."""

import time
from collections.abc import Callable

from appliance.gateway.errors import BadRequest, DeadlineExceeded, EngineFault, GatewayFault, PeerUnavailable
from appliance.gateway.flow.choice import ChoiceText
from appliance.gateway.flow.coverage import Coverage
from appliance.gateway.flow.mailbox import Mailbox
from appliance.gateway.flow.request import Asked, encode_prompt
from appliance.gateway.peers.engines import Delivery, EnginePeer
from appliance.gateway.peers.policy import Reservation
from appliance.gateway.text.vocabulary import Vocabulary
from audit.events import TokenCounts
from runtime.request import Finish, PromptDelivery, RequestSummary, TokenDelivery

Unread = TokenDelivery | RequestSummary
"""What waits in the mailbox."""


class Generation:
    """State of one prompt from reservation to settlement. It receives what the engine gives."""

    def __init__(
        self,
        asked: Asked,
        index: int,
        vocabulary: Vocabulary,
        mailbox: "Mailbox[tuple[Generation, Unread]]",
        on_fault: Callable[[GatewayFault], None],
        on_token: "Callable[[Generation, int, int], bool]",
    ) -> None:
        """`on_fault` ends the whole answer; `on_token` may take a token at once, and says whether it did."""
        self._mailbox = mailbox
        self._on_fault = on_fault
        self._on_token = on_token
        self.index = index
        self.prompt = encode_prompt(asked.prompts[index])
        self.token_limit = asked.sampling.max_tokens * asked.n
        self.coverage: Coverage | None = None
        self.intent_index: int | None = None
        self.outcome_index: int | None = None
        self.is_closed = False
        """Its outcome is being recorded, or has been, if it has an intent."""
        self.is_late = False
        """Its intent became durable when it was closed."""
        self.settled: Reservation | None = None
        self.request_id: int | None = None
        self.engine: EnginePeer | None = None
        self.prompt_delivery: PromptDelivery | None = None
        self.summary: RequestSummary | None = None
        self.first_token_at: float | None = None
        self.last_token_at = 0.0
        self.ended_at: float | None = None
        self.choices = [
            ChoiceText(
                vocabulary,
                asked.stops,
                begins_text=asked.begins_text,
                gives_text=asked.gives_text,
                shows_tokens=asked.sampling.logprobs >= 0,
                prompt=index,
                index=choice,
                min_tokens=asked.sampling.min_tokens,
            )
            for choice in range(asked.n)
        ]

    def deliver(self, delivery: Delivery) -> None:
        """Take what the engine gives; called by its link."""
        if isinstance(delivery, PromptDelivery):
            self.prompt_delivery = delivery  # Nobody waits for it: the first token's reader finds it here.
        else:
            num_tokens = len(delivery.token_ids) if isinstance(delivery, TokenDelivery) else 1
            self._mailbox.put((self, delivery), num_tokens)

    def deliver_token(self, choice: int, token_id: int) -> None:
        """Take an ordinary token; called by the engine's link."""
        if not self._on_token(self, choice, token_id):
            assert self.request_id is not None
            self._mailbox.put((self, TokenDelivery(self.request_id, choice, [token_id])), 1)

    def take_summary(self, summary: RequestSummary) -> None:
        """The engine has released all that it had of it."""
        self.summary = summary
        self.ended_at = time.monotonic()

    def covers(self, num_tokens: int) -> bool:
        """Whether the quota covers so many more tokens now; asks ahead when it gets low."""
        return self.coverage is not None and self.coverage.covers(self.num_output_tokens + num_tokens)

    def let_go(self) -> None:
        """Of the answer: it is over."""
        self._on_fault, self._on_token = _ignore, _refuse

    def fail(self, fault: GatewayFault) -> None:
        """The engine will give nothing more; called by its link."""
        self.engine = None
        self._on_fault(fault)

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return len(self.prompt) // 4

    @property
    def num_output_tokens(self) -> int:
        """Output tokens that count, over all choices."""
        choices = self.choices
        return choices[0].num_tokens if len(choices) == 1 else sum([choice.num_tokens for choice in choices])

    @property
    def num_cached_tokens(self) -> int:
        """Prompt tokens that the prefix cache held. Of a prompt that was given up early only the summary tells."""
        delivered = self.prompt_delivery or self.summary
        return delivered.cached_tokens if delivered is not None else 0

    @property
    def counts(self) -> TokenCounts:
        """All counts, for the outcome."""
        return TokenCounts(
            prompt_tokens=self.num_prompt_tokens,
            cached_tokens=self.num_cached_tokens,
            output_tokens=self.num_output_tokens,
        )

    @property
    def is_done(self) -> bool:
        """All choices ended and the engine has summed up."""
        return self.summary is not None and None not in [choice.end for choice in self.choices]

    @property
    def reason(self) -> str:
        """Why it ended, all choices taken together."""
        reasons = {choice.end.reason for choice in self.choices if choice.end is not None}
        return "length" if "length" in reasons else "stop"

    def cancel(self) -> None:
        """End it in the engine; each choice keeps what was counted here.

        One whose intent is not known to be recorded is withdrawn as a whole: the engine answers that it is refused, or, if the
        ticket has come there all the same, sums up.
        """
        if self.engine is None or self.request_id is None or self.summary is not None:
            return
        if self.intent_index is None:
            self.engine.cancel(self.request_id, keep_tokens=0)
            return
        for index, choice in enumerate(self.choices):
            if choice.end is None:
                self.engine.cancel(self.request_id, index, choice.num_tokens)

    def note_tokens(self) -> float | None:
        """Note that tokens came now; gives the seconds since the last ones, None for the first."""
        now, last = time.monotonic(), self.last_token_at
        self.last_token_at = now
        if self.first_token_at is None:
            self.first_token_at = now
            return None
        return now - last


def verify_finish(finish: Finish | None, deadline_s: float) -> None:
    """Raise what an engine's end means to a client, unless it is an ordinary one.

    Raises: DeadlineExceeded, EngineFault, PeerUnavailable.
    """
    if finish is None or finish.reason in ("stop", "length"):
        return
    if finish.reason == "deadline":
        raise DeadlineExceeded("deadline_exceeded", f"the answer took longer than {deadline_s:g} s")
    if finish.reason == "cancelled" and finish.detail == "aborted":
        raise BadRequest("aborted", "the request was aborted")
    if finish.reason == "error" and finish.detail.startswith("grammar_"):
        raise BadRequest(finish.detail, f"what the output is held to could not be followed further: {finish.detail}")
    if finish.reason == "error":
        raise EngineFault(
            finish.detail or "engine_error", f"the engine ended this request: {finish.detail or 'an error'}"
        )
    raise PeerUnavailable("engine_unavailable", "the engine ended this request")


def _ignore(_fault: GatewayFault) -> None:
    return


def _refuse(_generation: Generation, _choice: int, _token_id: int) -> bool:
    return False
