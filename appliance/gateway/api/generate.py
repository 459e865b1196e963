"""`POST /generate`: SGLang's native route with `meta_info`, so that its tools run unchanged.

A stream repeats the text from its beginning with every event, as SGLang's does.
"""

import time
from collections.abc import Iterable
from typing import Any

from appliance.gateway.api.dialects import OPENAI
from appliance.gateway.api.endpoint import Inference
from appliance.gateway.api.generate_request import GenerateRequest, parse_generate_request
from appliance.gateway.api.intake import Intake, Limit, Scores, Wanted, new_uid
from appliance.gateway.api.logprobs import finite
from appliance.gateway.errors import BadRequest
from appliance.gateway.flow.choice import ChoiceEnd, Piece
from appliance.gateway.flow.generation import Generation
from appliance.gateway.flow.request import Asked
from appliance.gateway.identity import Principal
from appliance.gateway.text.vocabulary import Vocabulary
from runtime.request import RequestSummary, TokenLogprobs

ROUTE = "/generate"


class GenerateApi:
    """Continues texts, in SGLang's words."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def prepare(self, body: dict[str, Any], principal: Principal) -> Inference:
        """Check a body. Raises: GatewayFault."""
        request = parse_generate_request(body, self._intake.settings)
        fields, sampling = request.fields, request.sampling
        model = self._intake.find_model(fields.model)
        prompts = await self._intake.tokenize_prompts(model, request.prompts, request.where)
        _verify_start(fields.logprob_start_len, min(map(len, prompts)))
        wanted = Wanted(
            uid=new_uid("gen"),
            route=ROUTE,
            sampling=sampling,
            limit=Limit(max(1, sampling.max_new_tokens), "sampling_params.max_new_tokens"),
            gives_text=sampling.max_new_tokens > 0,
            scores=Scores(request.logprobs, request.prompt_logprobs, "top_logprobs_num"),
            n=sampling.n,
            stops=request.stops,
            priority=fields.priority,
            structure=request.structure,
            stream=fields.stream,
        )
        asked = await self._intake.ask(principal, model, prompts, wanted)
        vocabulary = model.tokenizer.vocabulary
        return Inference(
            asked,
            vocabulary,
            fields.stream,
            lambda answer, arrived_at: _NativeWords(asked, request, vocabulary, answer.generations, arrived_at),
        )


def _verify_start(start: int, shortest_prompt: int) -> None:
    """Logprobs begin in each prompt, or at its end. Raises: BadRequest."""
    if start > shortest_prompt:
        message = f"logprob_start_len is {start}, behind the end of a prompt of {shortest_prompt} tokens"
        raise BadRequest("invalid_parameter", message, parameter="logprob_start_len")


class _Text:
    """One choice as it has grown so far."""

    def __init__(self) -> None:
        self.text = ""
        self.output_ids: list[int] = []
        self.logprobs: list[tuple[int, TokenLogprobs]] = []
        self.end: ChoiceEnd | None = None


class _NativeWords:
    """Words a native answer, as events or as a whole."""

    dialect = OPENAI
    reading = None

    def __init__(
        self,
        asked: Asked,
        request: GenerateRequest,
        vocabulary: Vocabulary,
        generations: list[Generation],
        arrived_at: float,
    ) -> None:
        self._asked = asked
        self._fields = request.fields
        self._is_list = request.is_list or asked.n > 1
        self._vocabulary = vocabulary
        self._generations = generations
        self._arrived_at = arrived_at
        self._texts = [[_Text() for _ in range(asked.n)] for _ in asked.prompts]

    def begin(self, generations: list[Generation]) -> Iterable[object]:
        """Nothing comes before the text."""
        return ()

    def piece(self, piece: Piece) -> Iterable[dict[str, Any]]:
        """The choice as it stands now."""
        self._take(piece)
        if piece.text or piece.end is not None:
            yield self._object(piece.prompt, piece.choice)

    def finish(self, generations: list[Generation]) -> Iterable[object]:
        """Nothing comes after it."""
        return ()

    def _take(self, piece: Piece) -> None:
        text = self._texts[piece.prompt][piece.choice]
        text.text += piece.text
        text.output_ids += piece.token_ids
        text.logprobs += zip(piece.token_ids, piece.logprobs, strict=False)
        text.end = piece.end or text.end

    def whole(self, pieces: list[Piece], generations: list[Generation]) -> dict[str, Any] | list[dict[str, Any]]:
        """One object, or one for each prompt and choice."""
        for piece in pieces:
            self._take(piece)
        objects = [
            self._object(prompt, choice)
            for prompt in range(len(self._asked.prompts))
            for choice in range(self._asked.n)
        ]
        return objects if self._is_list else objects[0]

    def _object(self, prompt: int, choice: int) -> dict[str, Any]:
        text = self._texts[prompt][choice]
        result: dict[str, Any] = {
            "text": text.text,
            "output_ids": text.output_ids,
            "meta_info": self._meta_info(prompt, choice, text),
        }
        if self._is_list:
            result["index"] = prompt * self._asked.n + choice
        return result

    def _meta_info(self, prompt: int, choice: int, text: _Text) -> dict[str, Any]:
        generation = self._generations[prompt]
        meta: dict[str, Any] = {
            "id": self._asked.uid_of(prompt),
            "finish_reason": _finish_reason(text.end, len(text.output_ids)),
            "prompt_tokens": generation.num_prompt_tokens,
            "completion_tokens": generation.choices[choice].num_tokens,
            "cached_tokens": generation.num_cached_tokens,
            "e2e_latency": time.monotonic() - self._arrived_at,
        }
        if generation.summary is not None:
            meta["num_retractions"] = generation.summary.num_retractions
            meta |= _speculation(generation.summary)
        if self._fields.return_logprob:
            meta["output_token_logprobs"] = [self._logprob(token_id, entry) for token_id, entry in text.logprobs]
            entries = self._input_entries(prompt, generation)
            meta["input_token_logprobs"] = [self._logprob(token_id, entry) for token_id, entry in entries]
            if self._fields.top_logprobs_num:
                meta["output_top_logprobs"] = [self._top(entry) for _, entry in text.logprobs]
                meta["input_top_logprobs"] = [None if entry is None else self._top(entry) for _, entry in entries]
        return meta

    def _input_entries(self, prompt: int, generation: Generation) -> list[tuple[int, TokenLogprobs | None]]:
        """Tokens of the prompt from the asked place on; the first of all has no logprob. None by default."""
        delivered, start = generation.prompt_delivery, self._fields.logprob_start_len
        if start < 0 or delivered is None or delivered.logprobs is None:
            return []
        return list(zip(self._asked.prompts[prompt], delivered.logprobs, strict=True))[start:]

    def _logprob(self, token_id: int, entry: TokenLogprobs | None) -> list[Any]:
        shown = self._vocabulary.text_of(token_id) if self._fields.return_text_in_logprobs else None
        return [None if entry is None else finite(entry.chosen), token_id, shown]

    def _top(self, entry: TokenLogprobs) -> list[list[Any]]:
        shows = self._fields.return_text_in_logprobs
        return [
            [finite(value), token_id, self._vocabulary.text_of(token_id) if shows else None]
            for token_id, value in zip(entry.top_ids, entry.top_values, strict=True)
        ]


def _speculation(summary: RequestSummary) -> dict[str, Any]:
    """What drafts did for a prompt, all its choices together, by SGLang's names; nothing where none were verified."""
    if not summary.num_verified:
        return {}
    return {
        "spec_verify_ct": summary.num_verified,
        "spec_draft_token_num": summary.num_proposed,
        "spec_accept_token_num": summary.num_accepted,
        "spec_accept_rate": summary.num_accepted / summary.num_proposed,
        "spec_accept_length": 1 + summary.num_accepted / summary.num_verified,
    }


def _finish_reason(end: ChoiceEnd | None, num_tokens: int) -> dict[str, Any] | None:
    if end is None:
        return None
    if end.reason == "length":
        return {"type": "length", "length": num_tokens}
    return {"type": "stop", "matched": end.matched}


class _Healthy:
    """Says that an answer came."""

    dialect = OPENAI
    reading = None

    def begin(self, generations: list[Generation]) -> Iterable[object]:
        """Nothing: it is never streamed."""
        return ()

    def piece(self, piece: Piece) -> Iterable[object]:
        """Nothing."""
        return ()

    def finish(self, generations: list[Generation]) -> Iterable[object]:
        """Nothing."""
        return ()

    def whole(self, pieces: list[Piece], generations: list[Generation]) -> dict[str, str]:
        """A word."""
        return {"status": "ok"}


def healthy_words(_answer: object, _arrived_at: float) -> _Healthy:
    """Words for an answer of which only matters that it came."""
    return _Healthy()
