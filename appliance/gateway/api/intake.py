"""Step (3) of every route that computes: the model is found, prompts are tokenized, limits and the model's defaults applied.

Names of parameters differ between the APIs, so each says its own; what a request is held to is the same by whichever it comes.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from appliance.gateway.api.chat_request import ChatRequest
from appliance.gateway.api.completion_request import Prompt
from appliance.gateway.api.fields import SamplingFields
from appliance.gateway.api.reading import opens_reasoning
from appliance.gateway.api.structured import Structure, hold_after_reasoning
from appliance.gateway.api.tokenization import TokenizerThreads
from appliance.gateway.api.validation import (
    audit_parameters,
    build_sampling,
    resolve_max_tokens,
    verify_priority,
    verify_prompt,
    verify_prompt_logprobs,
)
from appliance.gateway.errors import BadRequest
from appliance.gateway.flow.desk import Desk
from appliance.gateway.flow.request import Asked
from appliance.gateway.identity import Principal
from appliance.gateway.models import Models, ServedModel
from appliance.gateway.settings import GatewaySettings
from appliance.messages.engine import ModelFacts


@dataclass(frozen=True)
class Limit:
    """Most output tokens, as asked for, and by which name; None: as many as fit."""

    value: int | None
    name: str = "max_tokens"


@dataclass(frozen=True)
class Scores:
    """Logprobs asked for, in the terms of `SamplingParams` (-1: none), and by which name those of the prompt."""

    output: int = -1
    prompt: int = -1
    name: str = "logprobs"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What an API asks for beyond its prompts."""

    uid: str
    route: str
    sampling: SamplingFields
    limit: Limit
    scores: Scores = Scores()
    n: int = 1
    stops: tuple[str, ...] = ()
    priority: int = 0
    stream: bool = False
    user: str = ""
    begins_text: bool = False
    gives_text: bool = True
    structure: Structure | None = None
    wants_embedding: bool = False


class Intake:
    """Holds requests of one worker to the models that it serves."""

    def __init__(self, desk: Desk, models: Models, threads: TokenizerThreads) -> None:
        self._desk = desk
        self._models = models
        self._threads = threads

    @property
    def settings(self) -> GatewaySettings:
        """The bounds of a request."""
        return self._desk.settings

    def find_model(self, name: str | None) -> ServedModel:
        """A model by its name; the only one there is where none is named. Raises: NotFound, BadRequest."""
        if name is not None:
            return self._models.find(name)
        only = self._models.only
        if only is None:
            raise BadRequest("missing_parameter", "several models are served: name one in model", parameter="model")
        return only

    async def look_up(self, principal: Principal, name: str | None) -> ServedModel:
        """As `find_model`, for a request that uses the model's tokenizer alone: the client must be allowed the model, and it counts
        against the limits of requests per minute. Raises: GatewayFault.
        """
        model = self.find_model(name)
        await self._desk.policy.look_up(principal, model.name)
        return model

    def facts_of(self, model: ServedModel) -> ModelFacts:
        """What its engine says of a model. Raises: PeerUnavailable."""
        return self._desk.engines.for_model(model.name).facts

    async def tokenize_chat(self, model: ServedModel, request: ChatRequest) -> list[int]:
        """The prompt of a conversation. Raises: BadRequest, PeerUnavailable."""
        if request.tools and not model.template.takes_tools:
            raise BadRequest(
                "unsupported_parameter", f"tools: the chat template of {model.name} takes none", parameter="tools"
            )
        facts = self.facts_of(model)
        prompt = await self._threads.chat(model, request, facts.context_length)
        verify_prompt(prompt, facts, "messages")
        return prompt

    async def tokenize_prompts(
        self, model: ServedModel, prompts: Sequence[Prompt], where: Callable[[int], str], *, plain: bool = False
    ) -> list[list[int]]:
        """Token ids of each prompt; `where` names one in errors, `plain`: without what the tokenizer puts around a text.

        Raises: BadRequest, PeerUnavailable.
        """
        facts = self.facts_of(model)
        tokenized: list[list[int]] = []
        for index, prompt in enumerate(prompts):
            token_ids = await self._threads.prompt(model, prompt, facts.context_length, where(index), plain=plain)
            verify_prompt(token_ids, facts, where(index))
            tokenized.append(token_ids)
        return tokenized

    async def ask_chat(
        self, principal: Principal, request: ChatRequest, uid: str, route: str
    ) -> tuple[Asked, ServedModel]:
        """What a conversation asks, and of which model. Raises: GatewayFault."""
        fields = request.fields
        model = self.find_model(fields.model)
        prompt = await self.tokenize_chat(model, request)
        structure = request.held_to(model)
        if structure is not None:
            is_open = opens_reasoning(model.tokenizer.vocabulary, prompt)
            structure = hold_after_reasoning(model, structure, is_open=is_open)
        limit, name = request.max_tokens
        wanted = Wanted(
            uid=uid,
            route=route,
            sampling=fields,
            limit=Limit(limit, name),
            scores=Scores(request.logprobs),
            n=fields.n,
            stops=request.stops,
            priority=fields.priority,
            stream=fields.stream,
            user=fields.user,
            begins_text=not fields.continue_final_message,
            structure=structure,
        )
        return await self.ask(principal, model, [prompt], wanted), model

    async def ask(
        self, principal: Principal, model: ServedModel, prompts: Sequence[Sequence[int]], wanted: Wanted
    ) -> Asked:
        """All of it, checked, and what output is held to compiled. Raises: BadRequest, PeerUnavailable, Overloaded."""
        verify_priority(wanted.priority, self.settings.max_client_priority)
        engine = self._desk.engines.for_model(model.name)
        longest = max(len(prompt) for prompt in prompts)
        verify_prompt_logprobs(longest, wanted.scores.prompt, wanted.scores.name)
        limit = wanted.limit
        max_tokens = resolve_max_tokens(limit.value, limit.name, longest, wanted.n, engine.facts, engine.status)
        sampling = build_sampling(
            wanted.sampling,
            model,
            engine.facts,
            max_tokens=max_tokens,
            logprobs=wanted.scores.output,
            prompt_logprobs=wanted.scores.prompt,
        )
        grammar = await self._compile(principal, model, wanted)
        return Asked(
            uid=wanted.uid,
            route=wanted.route,
            model=model.name,
            prompts=prompts,
            sampling=sampling,
            n=wanted.n,
            stops=wanted.stops,
            priority=wanted.priority,
            grammar=grammar,
            wants_embedding=wanted.wants_embedding,
            begins_text=wanted.begins_text,
            gives_text=wanted.gives_text,
            parameters=audit_parameters(
                sampling, n=wanted.n, num_stops=len(wanted.stops), stream=wanted.stream, user=wanted.user
            )
            | ({} if wanted.structure is None else {"held_to": wanted.structure.parameter}),
        )

    async def _compile(self, principal: Principal, model: ServedModel, wanted: Wanted) -> bytes:
        structure = wanted.structure
        if structure is None:
            return b""
        return await self._desk.compiler.compile(principal, model.name, structure.encode(), structure.parameter)


def new_uid(prefix: str, mark: str = "-") -> str:
    """A public id that nobody can guess. Clients tell some of OpenAI's and Anthropic's by prefix and mark."""
    return f"{prefix}{mark}{secrets.token_hex(16)}"
