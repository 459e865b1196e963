"""The engines as the gateway sees them: who serves which model, and whose tokens are whose."""

import itertools
import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Protocol

import structlog

from appliance.errors import LinkClosed
from appliance.gateway.errors import BadRequest, EngineFault, GatewayFault, PeerUnavailable, QueueFull
from appliance.gateway.peers.links import Link
from appliance.messages.engine import (
    REQUEST_ID_BITS,
    AbortIntent,
    Cancel,
    EngineStatus,
    FlushCache,
    ModelFacts,
    RequestRefused,
    StepTokens,
    Submit,
)
from runtime.request import PromptDelivery, RequestSummary, TokenDelivery

log = structlog.get_logger(__name__)

Delivery = PromptDelivery | TokenDelivery | RequestSummary

QUEUE_RETRY_AFTER_S = 2
"""A queue that is full empties by a few requests in that time."""


class Receiver(Protocol):
    """Takes what an engine gives for one generation. Neither method may wait or raise."""

    def deliver(self, delivery: Delivery) -> None:
        """Something came."""
        ...

    def deliver_token(self, choice: int, token_id: int) -> None:
        """A token came that is neither the first nor the last, and has no logprobs: what nearly all are."""
        ...

    def fail(self, fault: GatewayFault) -> None:
        """Nothing more will come."""
        ...


class EnginePeer:
    """One engine over one link."""

    def __init__(self, link: Link, facts: ModelFacts) -> None:
        self.instance = link.peer_instance
        self.facts = facts
        self.status: EngineStatus | None = None
        self.status_at = 0.0
        self._link = link
        self._open: dict[int, Receiver] = {}

    @property
    def num_open(self) -> int:
        """Generations of this worker that run there."""
        return len(self._open)

    def submit(self, submit: Submit, receiver: Receiver) -> None:
        """Start a generation. Raises: PeerUnavailable."""
        try:
            self._link.send(submit)
        except LinkClosed as closed:
            raise _lost(self.facts.name) from closed
        self._open[submit.request_id] = receiver

    def cancel(self, request_id: int, choice: int | None = None, keep_tokens: int | None = None) -> None:
        """End a generation or one choice of it; one that has ended already is not disturbed."""
        try:
            self._link.send(Cancel(request_id, choice, keep_tokens))
        except LinkClosed:
            return

    def tell(self, message: AbortIntent | FlushCache) -> bool:
        """Say what is not answered; False if the engine was lost."""
        try:
            self._link.send(message)
        except LinkClosed:
            return False
        return True

    def forget(self, request_id: int) -> None:
        """Nobody waits for this generation any more."""
        self._open.pop(request_id, None)

    def handle(self, message: StepTokens | RequestRefused | EngineStatus) -> None:
        """Take one message of the link."""
        if isinstance(message, EngineStatus):
            self.status, self.status_at = message, time.monotonic()
        elif isinstance(message, RequestRefused):
            receiver = self._open.pop(message.request_id, None)
            if receiver is not None:
                receiver.fail(_refusal(message))
        else:
            if message.prompts:
                self._deliver(message.prompts)
            if message.plain.choices:  # An empty one is unpacked as dearly as a full one.
                for request_id, choice, token_id in message.plain:
                    receiver = self._open.get(request_id)
                    if receiver is not None:
                        receiver.deliver_token(choice, token_id)
            if message.tokens:
                self._deliver(message.tokens)
            if message.summaries:
                self._deliver(message.summaries)

    def _deliver(self, deliveries: Sequence[Delivery]) -> None:
        find = self._open.get
        for delivery in deliveries:
            receiver = find(delivery.request_id)
            if receiver is not None:
                receiver.deliver(delivery)

    def end(self) -> None:
        """The link ended: every generation on it has."""
        for receiver in list(self._open.values()):
            receiver.fail(_lost(self.facts.name))
        self._open.clear()


class Engines:
    """All engines that are connected now.

    Args:
        served: the model of each engine by its instance, by the configuration. An engine is believed no other name: it would be
            given another model's prompts.
    """

    def __init__(self, served: Sequence[str]) -> None:
        self._served = served
        self._peers: list[EnginePeer] = []
        self._serving: dict[str, list[EnginePeer]] = {}
        """Those of a model, by its name."""
        self._numbers = itertools.count(secrets.randbits(REQUEST_ID_BITS - 1))

    def __iter__(self) -> Iterator[EnginePeer]:
        return iter(self._peers)

    async def run(self, link: Link) -> None:
        """Serve one link until it ends. An engine says first what it serves. Raises: LinkClosed."""
        facts = await link.receive()
        if not isinstance(facts, ModelFacts):
            raise LinkClosed(f"engine/{link.peer_instance} did not begin with its model's facts")
        if facts.name not in self._served[link.peer_instance : link.peer_instance + 1]:
            log.error("engine_refused", engine=link.peer_instance, model=facts.name)
            raise LinkClosed(f"engine/{link.peer_instance} says that it serves {facts.name!r}, which is not its model")
        peer, serving = EnginePeer(link, facts), self._serving.setdefault(facts.name, [])
        self._peers.append(peer)
        serving.append(peer)
        try:
            await link.serve(peer.handle)
        finally:
            self._peers.remove(peer)
            serving.remove(peer)
            peer.end()

    def new_request_id(self) -> int:
        """A number that this worker has not used, nor any former life of it, whose tickets may still be on their way."""
        return next(self._numbers)

    def for_model(self, name: str) -> EnginePeer:
        """The engine of a model that has the least of this worker's generations. Raises: PeerUnavailable."""
        serving = self._serving.get(name)
        if not serving:
            raise PeerUnavailable("engine_unavailable", f"no engine serves the model {name} now")
        return serving[0] if len(serving) == 1 else min(serving, key=lambda peer: peer.num_open)


def _lost(model: str) -> PeerUnavailable:
    return PeerUnavailable("engine_unavailable", f"the engine of the model {model} was lost")


def _refusal(message: RequestRefused) -> GatewayFault:
    """What an engine refuses is the client's doing only where it is about the request itself."""
    match message.code:
        case "engine_unavailable":
            return PeerUnavailable("engine_unavailable", message.message)
        case "queue_full":
            return QueueFull(message.code, message.message, retry_after_s=QUEUE_RETRY_AFTER_S)
        case "bad_ticket" | "duplicate_request" | "malformed_prompt":
            return EngineFault(message.code, "the engine refused the gateway's request: " + message.message)
        case code:
            return BadRequest(code, message.message, parameter=message.parameter)
