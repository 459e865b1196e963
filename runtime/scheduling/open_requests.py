"""Requests that are open: their tokens on the way out, and how each of their answers ends.

A choice ends by its own token, by its length, by its client, its deadline, or a fault of its own; it is told so at once, and its
sequence gives back its pages unless it computes the prompt for others too. A request is forgotten when all its choices have ended.
"""

import heapq

import numpy as np

from runtime.request import Finish, TokenDelivery, TokenLogprobs
from runtime.scheduling.delivery import PlainTokens, StepOutput, Totals, prompt_of, summary_of
from runtime.scheduling.estimate import OutputEstimate
from runtime.scheduling.requests import NOT_RUNNING, Choice, DraftCounts, Request, Sequence
from runtime.scheduling.running import RunningSequences
from runtime.scheduling.waiting import WaitingQueue

NON_FINITE = Finish("error", None, "non_finite_logits")


class OpenRequests:
    """All requests that have not ended, and what is to be told of them."""

    def __init__(
        self, running: RunningSequences, waiting: WaitingQueue, estimate: OutputEstimate, *, num_mask_words: int
    ) -> None:
        """
        Args:
            running, waiting: where the requests' sequences are; they leave it as their choices end.
            estimate: learns how long answers become.
            num_mask_words: of a grammar's mask; 0: there are no grammars.
        """
        self._running = running
        self._waiting = waiting
        self._estimate = estimate
        self._num_mask_words = num_mask_words
        self._requests: dict[int, Request] = {}
        self._deadlines: list[tuple[float, int]] = []
        self._output = StepOutput()
        self.totals = Totals()

    def __bool__(self) -> bool:
        """Whether any request is open, or deliveries wait for `take_output`."""
        return bool(self._requests) or bool(self._output)

    def __contains__(self, request_id: int) -> bool:
        return request_id in self._requests

    def add(self, request: Request) -> None:
        """Open a request, whose sequence the caller queues."""
        self._requests[request.id] = request
        if request.deadline is not None:
            heapq.heappush(self._deadlines, (request.deadline, request.id))

    def cancel(self, request_id: int, choice: int | None = None, keep_tokens: int | None = None) -> None:
        """End a request or one of its choices; what has ended already, or never was, is left alone.

        Args:
            keep_tokens: so many output tokens count, of each choice that ends here; None keeps all that were delivered.
        """
        request = self._requests.get(request_id)
        if request is None:
            return
        for candidate in request.choices:
            if candidate.finish is None and choice in (None, candidate.index):
                self._end(request, candidate, Finish("cancelled"), keep_tokens=keep_tokens)
        self.close_if_ended(request)

    def expire(self, now: float) -> None:
        """End what has passed its deadline, waiting or running."""
        while self._deadlines and self._deadlines[0][0] <= now:
            request = self._requests.get(heapq.heappop(self._deadlines)[1])
            if request is None or request.deadline is None or request.deadline > now:
                continue
            for choice in request.choices:
                if choice.finish is None:
                    self._end(request, choice, Finish("deadline"))
            self.close_if_ended(request)

    def deliver_plain(self, tokens: PlainTokens, drafts: DraftCounts) -> None:
        """Hand out a step's tokens that end nothing and of which nothing else is asked."""
        self._output.plain = tokens
        self.totals.generated_tokens += len(tokens)
        self.totals.drafts.add(drafts)

    def accept(self, sequence: Sequence, token: int, scores: list[TokenLogprobs] | None) -> None:
        """One more token of a choice, which its row has already, and which is not plain."""
        request, choice = sequence.request, sequence.choices[0]
        if not request.prompt_delivered:
            self._deliver_prompt(request)
        self._running.mark_ordinary(sequence)
        if choice.seen is not None:
            choice.seen.add(token)
        if choice.matcher is not None and token not in request.ending_ids:
            choice.matcher.accept(token)
            if choice.matcher.fault:
                self._end(request, choice, Finish("error", None, choice.matcher.fault))
                return
        if not request.is_internal:
            self.totals.generated_tokens += 1
        if token in request.ending_ids:
            self._end(request, choice, Finish("stop", token), tokens=[token], scores=scores)
        elif self._running.num_output(sequence) == request.sampling.max_tokens:
            self._end(request, choice, Finish("length"), tokens=[token], scores=scores)
        elif not request.is_internal:
            self._output.tokens.append(TokenDelivery(request.id, choice.index, [token], scores))

    def end_without_token(self, sequence: Sequence) -> None:
        """End a choice from whose logits no token can be chosen, unless something else may be to blame.

        One broken value reaches the positions before it, as attention weighs a whole tile of values, and nothing times NaN is NaN:
        other prompts' pages, which are shared before anybody knows what is in them, and the rows before a draft. So a sequence
        that shares or has verified drafts is started once more, alone.
        """
        request, choice = sequence.request, sequence.choices[0]
        finish = self._non_finite(choice)
        if finish is NON_FINITE and (sequence.reads_others or self._running.table.num_verified[sequence.row] > 0):
            self._running.retract_tainted(sequence)
            self._waiting.add(sequence)
            return
        self._end(request, choice, finish)

    def close_if_ended(self, request: Request) -> None:
        """Forget a request whose choices have all ended, and say what it took."""
        if any(choice.finish is None for choice in request.choices):
            return
        del self._requests[request.id]
        if not request.is_internal:
            self._output.summaries.append(summary_of(request))

    def take_output(self) -> StepOutput:
        """All deliveries since the last call."""
        output, self._output = self._output, StepOutput()
        return output

    def computed_sequences(self) -> set[int]:
        """Identities of the sequences that compute for choices which have not ended. For `check_integrity`."""
        computed: set[int] = set()
        for request in self._requests.values():
            for choice in request.choices:
                assert (choice.finish is None) == (choice.sequence is not None)
                if choice.sequence is not None:
                    assert choice in choice.sequence.choices
                    computed.add(id(choice.sequence))
        return computed

    def _end(
        self,
        request: Request,
        choice: Choice,
        finish: Finish,
        *,
        keep_tokens: int | None = None,
        tokens: list[int] | None = None,
        scores: list[TokenLogprobs] | None = None,
    ) -> None:
        """End one choice: its sequence stops, unless it computes the prompt for others too."""
        sequence = choice.sequence
        assert sequence is not None
        if len(sequence.choices) == 1:
            choice.num_delivered = choice.num_output = self._running.num_output(sequence)
            if keep_tokens is not None:
                choice.num_output = min(choice.num_output, max(0, keep_tokens))
            self._drop(sequence, finish, caches_output=request.caches_output or keep_tokens is not None)
        else:
            sequence.choices.remove(choice)
            if sequence.row != NOT_RUNNING:
                self._running.follow_first_choice(sequence)
        choice.finish = finish
        choice.sequence = None
        if request.is_internal:
            return
        if finish.reason not in ("error", "deadline"):
            self._estimate.observe(choice.num_output, request.sampling.max_tokens)
        self._output.tokens.append(TokenDelivery(request.id, choice.index, tokens or [], scores, finish))

    def _drop(self, sequence: Sequence, finish: Finish, *, caches_output: bool) -> None:
        if sequence.row == NOT_RUNNING:
            self._waiting.remove(sequence)
        elif finish.detail == NON_FINITE.detail:
            self._running.stop_tainted(sequence)
        else:
            num_output = sequence.choices[0].num_output if caches_output else 0
            self._running.stop(sequence, num_kept=len(sequence.request.prompt) + num_output)

    def _non_finite(self, choice: Choice) -> Finish:
        """A grammar that gave up left nothing to choose from, which is no fault of the logits."""
        if choice.matcher is None:
            return NON_FINITE
        if not choice.matcher.fault:
            # Behind a draft its mask was tried ahead; it gives up now that it stands there.
            choice.matcher.fill(np.zeros(self._num_mask_words, np.int32))
        return Finish("error", None, choice.matcher.fault) if choice.matcher.fault else NON_FINITE

    def _deliver_prompt(self, request: Request) -> None:
        request.prompt_delivered = True
        if request.is_internal:
            return
        self._output.prompts.append(prompt_of(request))
        self.totals.prompt_tokens += len(request.prompt)
        self.totals.cached_tokens += request.cached_tokens
