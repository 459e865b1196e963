"""SGLang's native routes beside `/generate`, for its tools: what is served, how it stands, flush, abort, and a real token.

They say nothing that is a secret: no path of a folder, no key, no address of a process.
"""

from importlib.metadata import version
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from appliance.gateway.api.endpoint import Inference, InferenceEndpoint
from appliance.gateway.api.fields import Name, SamplingFields
from appliance.gateway.api.generate import healthy_words
from appliance.gateway.api.intake import Intake, Limit, Wanted, new_uid
from appliance.gateway.api.parameters import parse_parameters
from appliance.gateway.api.query import parse_query
from appliance.gateway.api.recording import record_request
from appliance.gateway.body import parse_object
from appliance.gateway.errors import BadRequest
from appliance.gateway.exchange import Exchange
from appliance.gateway.flow.desk import Desk
from appliance.gateway.identity import Principal
from appliance.gateway.models import Models
from appliance.messages.audit import MAX_UID_CHARS
from appliance.messages.engine import AbortIntent, FlushCache
from runtime.identifiers import PAGE_SIZE

FLUSH_ROUTE, HEALTH_ROUTE = "/flush_cache", "/health_generate"


class AbortFields(Struct, kw_only=True):
    """`/abort_request`."""

    rid: Annotated[str, Meta(min_length=1, max_length=MAX_UID_CHARS)] | None = None
    """The answer's id: `x-request-id`, or `meta_info.id`."""
    abort_all: bool = False


class FlushQuery(Struct, kw_only=True):
    """Of `/flush_cache`, as SGLang's load generator asks."""

    timeout: Annotated[float, Meta(ge=0, le=3600)] = 0
    """Seconds that it may take until no request runs. None are waited for: they keep their own pages."""


class HealthQuery(Struct, kw_only=True):
    """Of `/health_generate`, which SGLang's tools ask without any, as a server of theirs has one model."""

    model: Name | None = None
    """The one that is asked; else the first that who asks may use."""


class NativeEndpoints:
    """All but the inferring ones."""

    def __init__(self, desk: Desk, models: Models) -> None:
        self._desk = desk
        self._models = models

    async def model_info(self, exchange: Exchange) -> None:
        """The one model, or all that who asks may use."""
        names = await self._desk.policy.filter_models(exchange.identified, [model.name for model in self._models])
        infos = [self._info(name, self._models.find(name).template.exists) for name in names]
        await exchange.respond(200, infos[0] if len(infos) == 1 else {"models": infos})

    async def server_info(self, exchange: Exchange) -> None:
        """Every engine's state."""
        states: list[dict[str, Any]] = []
        for peer in self._desk.engines:
            state: dict[str, Any] = {
                "model": peer.facts.name,
                "engine": peer.instance,
                "build": peer.facts.engine_build,
                "tp_size": len(peer.facts.ranks),
                "ranks": [
                    {"rank": rank.rank, "device": rank.device, "gpu": rank.gpu or None, "memory_bytes": rank.memory}
                    for rank in peer.facts.ranks
                ],
            }
            status = peer.status
            if status is not None:
                state |= {
                    "num_running_reqs": status.num_running,
                    "num_queue_reqs": status.num_waiting,
                    "max_total_num_tokens": status.num_pages * PAGE_SIZE,
                    "memory_usage": {"token_capacity": status.num_pages * PAGE_SIZE},
                    "page_size": PAGE_SIZE,
                    "context_length": peer.facts.context_length,
                }
                if status.num_verified:
                    state["avg_spec_accept_length"] = 1 + status.num_accepted / status.num_verified
            states.append(state)
        total = sum(state.get("max_total_num_tokens", 0) for state in states)
        names = sorted({state["model"] for state in states})
        answer = {
            "version": version("casemate"),
            "model_path": ",".join(names),
            "tokenizer_path": ",".join(names),
            "max_total_num_tokens": total,
            "internal_states": states,
        }
        await exchange.respond(200, answer)

    async def flush_cache(self, exchange: Exchange) -> None:
        """Every engine forgets its cached prefixes, once it is recorded who asks; running requests go on."""
        parse_query(exchange.query, FlushQuery)
        await record_request(self._desk.auditor, exchange, "cache_flushed", ("POST", FLUSH_ROUTE), {})
        num_engines = 0
        for peer in self._desk.engines:
            num_engines += peer.tell(FlushCache())
        await exchange.respond(200, {"flushed_engines": num_engines})

    async def abort(self, exchange: Exchange) -> None:
        """End one's own request, wherever it runs: the auditor knows whose it is, and the engines know it by its intent."""
        fields = parse_parameters(parse_object(await exchange.read_body()), AbortFields)
        if fields.abort_all:
            message = "abort_all: requests are aborted one by one, each by its rid"
            raise BadRequest("unsupported_parameter", message, parameter="abort_all")
        if fields.rid is None:
            raise BadRequest("missing_parameter", "missing parameter: rid", parameter="rid")
        who = exchange.identified
        receipt = await self._desk.auditor.fetch_receipt(fields.rid, who.client_id, who.subject)
        for peer in self._desk.engines:
            peer.tell(AbortIntent(receipt.intent.index))
        await exchange.respond(200, {"rid": fields.rid, "aborted": receipt.outcome is None})

    def _info(self, name: str, has_template: bool) -> dict[str, Any]:
        builds = sorted(peer.facts.engine_build for peer in self._desk.engines if peer.facts.name == name)
        return {
            "model_path": name,
            "tokenizer_path": name,
            "is_generation": True,
            "has_chat_template": has_template,
            "preferred_sampling_params": None,
            "builds": builds,
        }


class HealthGenerate:
    """`GET /health_generate`: one real token out of a model, as any other request: recorded, and paid for by whoever asks."""

    def __init__(self, desk: Desk, models: Models, intake: Intake) -> None:
        self._endpoint = InferenceEndpoint(desk, self)
        self._policy = desk.policy
        self._models = models
        self._intake = intake

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request."""
        await self._endpoint.answer(exchange, msgspec.to_builtins(parse_query(exchange.query, HealthQuery)))

    async def prepare(self, body: dict[str, Any], principal: Principal) -> Inference:
        """One token after the first of the vocabulary. Raises: GatewayFault."""
        name = body["model"]
        if name is None:
            served = [model.name for model in self._models]
            name = next(iter(await self._policy.filter_models(principal, served)), served[0])
        model = self._intake.find_model(name)
        wanted = Wanted(
            uid=new_uid("health"), route=HEALTH_ROUTE, sampling=SamplingFields(temperature=0), limit=Limit(1)
        )
        asked = await self._intake.ask(principal, model, [[0]], wanted)
        return Inference(asked, model.tokenizer.vocabulary, False, healthy_words)
