"""A request that ended, as a span of OpenTelemetry's semantic conventions (HTTP server, and GenAI where a model answered).

Source: semantic-conventions 1.41, `http.md`; semantic-conventions-genai, `gen-ai-spans.md` (status: development), whose attribute
names are those of opentelemetry-semantic-conventions 0.66b2.
"""

import re

from appliance.gateway.observing import OTHER_METHOD, UNMATCHED, EndedInference, EndedRequest

Value = str | bool | int | float | tuple[str, ...] | tuple[int, ...]

PROVIDER = "casemate"
_OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/messages": "chat",
    "/v1/embeddings": "embeddings",
}
_OTHER_OPERATION = "text_completion"
_REDACTED = "REDACTED"
"""The conventions' word for what is scrubbed: in a path the names that the client chose, and all of one that nobody serves."""
_VARIABLE = re.compile(r"\{[^}]*\}")


def operation_of(inference: EndedInference) -> str:
    """`gen_ai.operation.name`."""
    return _OPERATIONS.get(inference.route, _OTHER_OPERATION)


def name_of(ended: EndedRequest) -> str:
    """The span's name: of few values, as the conventions ask."""
    if ended.inference is not None:
        return f"{operation_of(ended.inference)} {ended.inference.model}"
    method = "HTTP" if ended.method == OTHER_METHOD else ended.method
    return method if ended.route == UNMATCHED else f"{method} {ended.route}"


def attributes_of(ended: EndedRequest) -> dict[str, Value]:
    """The span's attributes."""
    attributes: dict[str, Value] = {
        "http.request.method": "_OTHER" if ended.method == OTHER_METHOD else ended.method,
        "http.response.status_code": ended.status,
        "url.scheme": "https",
        "url.path": f"/{_REDACTED}" if ended.route == UNMATCHED else _VARIABLE.sub(_REDACTED, ended.route),
    }
    if ended.route != UNMATCHED:
        attributes["http.route"] = ended.route
    if ended.error:
        attributes["error.type"] = ended.error
    if ended.inference is not None:
        attributes |= _inference_attributes(ended.inference)
    return attributes


def _inference_attributes(inference: EndedInference) -> dict[str, Value]:
    attributes: dict[str, Value] = {
        "gen_ai.operation.name": operation_of(inference),
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": inference.model,
        "gen_ai.response.id": inference.request_id,
        "gen_ai.response.model": inference.model,
        "gen_ai.usage.input_tokens": inference.prompt_tokens,
        "gen_ai.usage.cache_read.input_tokens": inference.cached_tokens,
        "casemate.audit.index": tuple(inference.intents),
    }
    return attributes if inference.is_embedding else attributes | _sampled_attributes(inference)


def _sampled_attributes(inference: EndedInference) -> dict[str, Value]:
    """Of an answer: what it was sampled with, and what came of it. Parameters that change nothing are left out."""
    attributes: dict[str, Value] = {
        "gen_ai.request.max_tokens": inference.max_tokens,
        "gen_ai.request.temperature": inference.temperature,
        "gen_ai.request.top_p": inference.top_p,
        "gen_ai.request.seed": inference.seed,
        "gen_ai.usage.output_tokens": inference.output_tokens,
    }
    unless_neutral: dict[str, float | int] = {
        "gen_ai.request.top_k": inference.top_k,
        "gen_ai.request.frequency_penalty": inference.frequency_penalty,
        "gen_ai.request.presence_penalty": inference.presence_penalty,
    }
    attributes |= {name: value for name, value in unless_neutral.items() if value}
    if inference.reasoning_tokens is not None:
        attributes["gen_ai.usage.reasoning.output_tokens"] = inference.reasoning_tokens
    if inference.num_choices != 1:
        attributes["gen_ai.request.choice.count"] = inference.num_choices
    if inference.finish_reasons:
        attributes["gen_ai.response.finish_reasons"] = tuple(inference.finish_reasons)
    if inference.is_streamed:
        attributes["gen_ai.request.stream"] = True
        if inference.first_token_s is not None:
            attributes["gen_ai.response.time_to_first_chunk"] = inference.first_token_s
    return attributes
