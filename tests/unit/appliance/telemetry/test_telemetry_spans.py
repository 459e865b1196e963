"""What a span says of a request: the conventions' names, the client's finish reasons, and nothing that the client chose."""

import dataclasses

from appliance.gateway.observing import OTHER_METHOD, UNMATCHED, EndedInference, EndedRequest
from appliance.gateway.trace_context import trace_of
from appliance.telemetry.spans import attributes_of, name_of

ANSWER = EndedInference(
    request_id="chatcmpl-1", route="/v1/chat/completions", model="m", max_tokens=8, temperature=1.0, top_p=1.0, seed=3,
    top_k=0, frequency_penalty=0.0, presence_penalty=0.0, num_choices=1, is_streamed=False, is_embedding=False,
    finish_reasons=["tool_calls"], prompt_tokens=5, cached_tokens=0, output_tokens=4, reasoning_tokens=None,
    duration_s=0.1, first_token_s=0.05, intents=[7],
)  # fmt: skip


def ended(method: str, route: str, inference: EndedInference | None = None) -> EndedRequest:
    return EndedRequest(trace_of(()), method, route, 200, 0.1, "", inference)


def test_a_path_without_names_in_it_is_told_and_names_are_scrubbed() -> None:
    """`url.path` is required of a server's span; what it would tell of a client is not."""
    told = attributes_of(ended("GET", "/v1/responses/{id}/input_items"))
    assert told["url.path"] == "/v1/responses/REDACTED/input_items"
    assert told["http.route"] == "/v1/responses/{id}/input_items"
    assert attributes_of(ended("GET", "/ready"))["url.path"] == "/ready"


def test_a_path_that_nobody_serves_has_no_route_and_no_name() -> None:
    """`http.route` is for routes; the name is the method alone."""
    request = ended("GET", UNMATCHED)
    told = attributes_of(request)
    assert (name_of(request), told["url.path"]) == ("GET", "/REDACTED")
    assert "http.route" not in told


def test_a_method_that_http_does_not_know_is_the_conventions_other() -> None:
    """And `HTTP` in the name."""
    request = ended(OTHER_METHOD, "/ready")
    assert (name_of(request), attributes_of(request)["http.request.method"]) == ("HTTP /ready", "_OTHER")


def test_tokens_of_reasoning_are_told_where_the_model_reasons() -> None:
    """None at all is a count, too."""
    name = "gen_ai.usage.reasoning.output_tokens"
    assert name not in attributes_of(ended("POST", ANSWER.route, ANSWER))
    thinking = dataclasses.replace(ANSWER, reasoning_tokens=0)
    assert attributes_of(ended("POST", ANSWER.route, thinking))[name] == 0
