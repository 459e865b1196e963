"""The grammar compiler as the gateway sees it, and the grammars that it has given: kept by tenant, so that no tenant can learn by
timing which schemas another uses."""

import hashlib
from collections import OrderedDict

from appliance.gateway.errors import BadRequest, InternalFault, Overloaded
from appliance.gateway.identity import Principal
from appliance.gateway.peers.links import Link
from appliance.gateway.peers.questions import Questions
from appliance.messages.grammar import MAX_STRUCTURE_CHARS, Compile, Compiled, CompileRefused

TIMEOUT_S = 60.0
"""A grammar waits for others of its client; each has a time of its own."""


class CompilerPeer:
    """The one compiler. It may be away: then constrained requests are refused, and others served."""

    def __init__(self, max_cached_bytes: int) -> None:
        self._questions = Questions("compiler_unavailable", "the grammar compiler", TIMEOUT_S)
        self._max_cached_bytes = max_cached_bytes
        self._cached_bytes = 0
        self._cached: OrderedDict[bytes, bytes] = OrderedDict()

    async def run(self, link: Link) -> None:
        """Serve one link until it ends. Raises: LinkClosed."""
        self._questions.attach(link)
        try:
            while True:
                message = await link.receive()
                self._questions.answer(message.correlation, message)
        finally:
            self._questions.detach(link)

    async def compile(self, principal: Principal, model: str, structure: str, parameter: str) -> bytes:
        """A grammar for one model; `parameter` is what the client gave it by.

        Raises: BadRequest, Overloaded, PeerUnavailable.
        """
        if len(structure) > MAX_STRUCTURE_CHARS:
            # A message that the edge does not allow would cost all of this worker's clients the link.
            message = f"{parameter}: it has {len(structure)} characters, at most {MAX_STRUCTURE_CHARS} are taken"
            raise BadRequest("grammar_too_large", message, parameter=parameter)
        key = hashlib.sha256("\0".join((principal.tenant, model, structure)).encode()).digest()
        if key in self._cached:
            self._cached.move_to_end(key)
            return self._cached[key]
        client = f"{principal.tenant}/{principal.client_id}"[:256]
        answer = await self._questions.ask(lambda number: Compile(number, client, model, structure))
        if isinstance(answer, CompileRefused):
            if answer.code == "compiler_busy":
                raise Overloaded(answer.code, answer.message)
            raise BadRequest(answer.code, f"{parameter}: {answer.message}", parameter=parameter)
        if not isinstance(answer, Compiled):
            raise InternalFault("internal_error", f"the compiler answered with {type(answer).__name__}")
        self._keep(key, answer.grammar)
        return answer.grammar

    def _keep(self, key: bytes, grammar: bytes) -> None:
        self._cached_bytes += len(grammar) - len(self._cached.get(key, b""))
        self._cached[key] = grammar
        while self._cached_bytes > self._max_cached_bytes and self._cached:
            self._cached_bytes -= len(self._cached.popitem(last=False)[1])
