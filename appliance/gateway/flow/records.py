"""The two records of a generation, as messages to the auditor. Steps (4) and (7).

Neither holds text: the prompt stands there as a keyed hash over its token ids (little-endian uint32), the answer as one over
its text in UTF-8 (several choices: over the JSON array of their texts).
"""

import hashlib

import msgspec

from appliance.gateway.errors import PeerUnavailable
from appliance.gateway.flow.bodies import SealingKey, encode_answer_body, encode_prompt_body
from appliance.gateway.flow.request import Asked
from appliance.gateway.identity import Principal
from appliance.gateway.text.detokenizer import detokenize
from appliance.gateway.text.vocabulary import Vocabulary
from appliance.messages.audit import AppendIntent, AppendOutcome
from audit.entry import encode_awaited_event, encode_event
from audit.events import Call, Caller, TokenCounts, denied_event, intent_event, outcome_event
from audit.keyed_hash import KeyedHash, KeyedHasher, Purpose


class Source(msgspec.Struct, frozen=True):
    """The other end of the client's connection, and the trace that it continues."""

    address: str
    port: int
    trace_id: str = ""


class Ending(msgspec.Struct, frozen=True):
    """How a generation ended, for its outcome."""

    reason: str
    is_success: bool
    http_status: int
    counts: TokenCounts
    texts: tuple[str, ...]
    first_token_ms: int | None
    total_ms: int
    num_cut: int = 0
    """Choices that a stop string ended."""


class Recorder:
    """Builds the records of one principal's request."""

    def __init__(
        self,
        principal: Principal,
        source: Source,
        asked: Asked,
        *,
        engine_build: str,
        engine_instance: int,
        vocabulary: Vocabulary,
    ) -> None:
        self._vocabulary = vocabulary
        self.sealing: SealingKey | None = None
        """What the bodies are sealed with, where policy keeps them."""
        self.hasher: KeyedHasher | None = None
        """Of the principal's tenant and the day on which the request came; set before the intent."""
        self._client_id = principal.client_id
        self._calls: dict[int, Call] = {}
        """What intent and outcome of a prompt have in common."""
        self._asked = asked
        self._trace_id = source.trace_id
        self._engine_build = engine_build
        self._engine_instance = engine_instance
        self._caller = Caller(
            client_id=principal.client_id,
            subject=principal.subject,
            tenant=principal.tenant,
            role=principal.role,
            token_issuer=principal.issuer,
            token_key_id=principal.key_id,
            token_id=principal.token_id,
            address=source.address,
            port=source.port,
        )

    @property
    def namespace(self) -> bytes:
        """Of the tenant's prefix cache: other tenants cannot even learn by timing what is in it."""
        assert self.hasher is not None
        return self.hasher.namespace

    def intent(
        self,
        number: int,
        index: int,
        prompt: bytes,
        token_limit: int,
        reservation: int,
        lifetime_ms: int,
        request_id: int,
    ) -> AppendIntent:
        """The intent of one prompt. `number` is the correlation, `request_id` what the engine knows it by."""
        hashed = self._hash("prompt", prompt)
        call = self._call(index)
        event = intent_event(
            self._caller,
            call,
            parameters=self._asked.parameters,
            prompt_hash=hashed.value,
            prompt_key_id=hashed.key_id,
            prompt_tokens=len(prompt) // 4,
            token_limit=token_limit,
            reservation=reservation,
            body=self._seal_prompt(index, call.request_uid),
        )
        return AppendIntent(
            number,
            encode_awaited_event(event),
            call.request_uid,
            self._client_id,
            self._asked.model,
            hashlib.sha256(prompt).digest(),
            token_limit,
            lifetime_ms,
            request_id,
            engine_instance=self._engine_instance,
        )

    def outcome(self, number: int, index: int, intent_index: int, ending: Ending) -> AppendOutcome:
        """The outcome of one prompt."""
        texts = ending.texts
        answer = texts[0].encode() if len(texts) == 1 else msgspec.json.encode(texts)
        hashed = self._hash("answer", answer)
        event = outcome_event(
            self._caller,
            self._call(index),
            intent_index=intent_index,
            reason=ending.reason,
            is_success=ending.is_success,
            counts=ending.counts,
            answer_hash=hashed.value,
            answer_key_id=hashed.key_id,
            http_status=ending.http_status,
            first_token_ms=ending.first_token_ms,
            total_ms=ending.total_ms,
            body=self._seal_answer(self._asked.uid_of(index), texts),
            num_cut=ending.num_cut,
        )
        return AppendOutcome(number, intent_index, encode_awaited_event(event))

    def denial(self, index: int, code: str, detail: str, http_status: int) -> bytes:
        """The event that says policy refused one prompt."""
        return encode_event(
            denied_event(self._caller, self._call(index), code=code, detail=detail, http_status=http_status)
        )

    def _hash(self, purpose: Purpose, data: bytes) -> KeyedHash:
        assert self.hasher is not None
        return self.hasher.hash(purpose, data)

    def _seal_prompt(self, index: int, request_uid: str) -> dict[str, str | int] | None:
        """Raises: PeerUnavailable: then there is no intent, and no answer."""
        if self.sealing is None:
            return None
        token_ids = self._asked.prompts[index]
        body = encode_prompt_body(detokenize(self._vocabulary, token_ids), token_ids)
        return self.sealing.seal(request_uid, "prompt", body)

    def _seal_answer(self, request_uid: str, texts: tuple[str, ...]) -> dict[str, str | int] | None:
        """What was answered was answered: an answer that cannot be kept any more is said to be missing."""
        if self.sealing is None:
            return None
        try:
            return self.sealing.seal(request_uid, "answer", encode_answer_body(texts))
        except PeerUnavailable as fault:
            return {"missing": str(fault)}

    def _call(self, index: int) -> Call:
        if (call := self._calls.get(index)) is None:
            call = self._calls[index] = Call(
                request_uid=self._asked.uid_of(index),
                trace_id=self._trace_id,
                route=self._asked.route,
                model=self._asked.model,
                engine_build=self._engine_build,
            )
        return call
