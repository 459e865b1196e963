"""Spans and GenAI metrics reach a collector on site: the client's trace goes on, and nothing personal is told."""

from typing import Any

import openai
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.appliance import Appliance
from tests.support.collector import Collector, attributes
from tests.support.waiting import wait_until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
MODEL = "casemate-demo"


def span_of(trace_id: str, collector: Collector) -> Span:
    """The first span of a trace, once the collector has it: spans leave in batches."""
    wait_until(lambda: spans_of(trace_id, collector))
    return spans_of(trace_id, collector)[0]


def spans_of(trace_id: str, collector: Collector) -> list[Span]:
    return [span for span in collector.spans() if span.trace_id.hex() == trace_id]


def test_a_chat_is_a_span_in_the_trace_of_its_client(sdk: openai.OpenAI, collector: Collector) -> None:
    """With the conventions' names, the audit record's index, and the counts that the answer told its client."""
    trace_id = TRACE[:-4] + "0001"
    answer = sdk.chat.completions.with_raw_response.create(
        model=MODEL,
        messages=[{"role": "user", "content": "What is Casemate?"}],
        max_tokens=8,
        seed=11,
        extra_headers={"traceparent": f"00-{trace_id}-{PARENT}-01"},
    )
    completion = answer.parse()
    assert completion.usage is not None
    span = span_of(trace_id, collector)
    assert (span.name, span.kind, span.parent_span_id.hex()) == (f"chat {MODEL}", Span.SPAN_KIND_SERVER, PARENT)
    assert answer.headers["traceresponse"] == f"00-{trace_id}-{span.span_id.hex()}-01"
    told = attributes(span.attributes)
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.request.model"] == MODEL
    assert told["gen_ai.request.seed"] == 11
    assert told["gen_ai.response.id"] == completion.id
    assert told["gen_ai.usage.input_tokens"] == completion.usage.prompt_tokens
    assert told["gen_ai.usage.output_tokens"] == completion.usage.completion_tokens
    assert told["gen_ai.response.finish_reasons"] == [completion.choices[0].finish_reason]
    assert "gen_ai.request.stream" not in told
    assert told["casemate.audit.index"] == [int(answer.headers["casemate-audit-index"])]
    assert (told["http.route"], told["http.response.status_code"]) == ("/v1/chat/completions", 200)


def test_a_span_says_tool_calls_where_the_client_was_told_so(sdk: openai.OpenAI, collector: Collector) -> None:
    """A whole chat and a stream; a response, whose answer has no such word, likewise."""
    parameters = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]}
    function = {"name": "get_weather", "description": "get_weather", "parameters": parameters}
    chat: dict[str, Any] = {
        "model": MODEL, "messages": [{"role": "user", "content": "What is the weather in Rome?"}], "max_tokens": 80,
        "tools": [{"type": "function", "function": function}], "tool_choice": "required", "temperature": 0,
    }  # fmt: skip
    traces = [TRACE[:-4] + f"001{number}" for number in range(3)]
    whole, streamed, response = ({"traceparent": f"00-{trace}-{PARENT}-01"} for trace in traces)
    answer = sdk.chat.completions.create(**chat, extra_headers=whole)
    assert answer.choices[0].finish_reason == "tool_calls"
    assert list(sdk.chat.completions.create(**chat, stream=True, extra_headers=streamed))
    tools: Any = [{"type": "function", "strict": False, **function}]
    sdk.responses.create(
        model=MODEL, input="What is the weather in Rome?", max_output_tokens=80, temperature=0,
        tools=tools, tool_choice="required", extra_headers=response,
    )  # fmt: skip
    for trace in traces:
        assert attributes(span_of(trace, collector).attributes)["gen_ai.response.finish_reasons"] == ["tool_calls"]


def test_a_stream_tells_when_its_first_chunk_came(sdk: openai.OpenAI, collector: Collector) -> None:
    """And what it was sampled with, as far as that changes anything."""
    trace_id = TRACE[:-4] + "0005"
    stream = sdk.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "What is Casemate?"}], max_tokens=8, stream=True,
        frequency_penalty=0.5, extra_body={"top_k": 7}, extra_headers={"traceparent": f"00-{trace_id}-{PARENT}-01"},
    )  # fmt: skip
    assert list(stream)
    span = span_of(trace_id, collector)
    told = attributes(span.attributes)
    assert 0 < told["gen_ai.response.time_to_first_chunk"] < (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
    assert (told["gen_ai.request.stream"], told["gen_ai.request.top_k"]) == (True, 7)
    assert told["gen_ai.request.frequency_penalty"] == 0.5
    assert "gen_ai.request.presence_penalty" not in told


def test_an_embedding_has_no_parameters_of_sampling(sdk: openai.OpenAI, collector: Collector) -> None:
    """The token that the engine computes for it is nobody's output."""
    trace_id = TRACE[:-4] + "0006"
    sdk.embeddings.create(model=MODEL, input="a", extra_headers={"traceparent": f"00-{trace_id}-{PARENT}-01"})
    told = attributes(span_of(trace_id, collector).attributes)
    assert (told["gen_ai.operation.name"], told["gen_ai.usage.input_tokens"]) == ("embeddings", 1)
    assert not {"gen_ai.request.temperature", "gen_ai.request.seed", "gen_ai.usage.output_tokens"} & told.keys()


def test_a_refusal_is_a_span_with_its_code(sdk: openai.OpenAI, collector: Collector) -> None:
    """`error.type` is the body's code; the route is the table's, whatever the client wrote."""
    trace_id = TRACE[:-4] + "0002"
    with pytest.raises(openai.NotFoundError) as raised:
        sdk.models.retrieve("no-such-model", extra_headers={"traceparent": f"00-{trace_id}-{PARENT}-01"})
    span = span_of(trace_id, collector)
    told = attributes(span.attributes)
    assert (span.name, told["http.response.status_code"]) == ("GET /v1/models/{id}", 404)
    assert told["url.path"] == "/v1/models/REDACTED"
    assert told["error.type"] == raised.value.code


def test_a_client_that_does_not_sample_is_not_recorded(
    appliance: Appliance, sdk: openai.OpenAI, collector: Collector
) -> None:
    """Its mark decides; a request after it, in a trace that is sampled, shows that the first would have come."""
    unsampled, sampled = TRACE[:-4] + "0003", TRACE[:-4] + "0004"
    sdk.models.list(extra_headers={"traceparent": f"00-{unsampled}-{PARENT}-00"})
    sdk.models.list(extra_headers={"traceparent": f"00-{sampled}-{PARENT}-01"})
    span_of(sampled, collector)
    assert not spans_of(unsampled, collector)


def test_histograms_of_the_conventions_come(sdk: openai.OpenAI, collector: Collector) -> None:
    """All four, after an answer."""
    sdk.completions.create(model=MODEL, prompt="Once", max_tokens=4)
    expected = {
        "gen_ai.server.request.duration",
        "gen_ai.server.time_to_first_token",
        "gen_ai.server.time_per_output_token",
        "gen_ai.client.token.usage",
    }
    wait_until(lambda: expected <= collector.metric_names())
