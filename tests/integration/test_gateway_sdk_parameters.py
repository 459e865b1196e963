"""Every parameter of OpenAI's SDK and every member of its messages: which are honoured, and that all others are refused by name.

The lists come from the installed package, so that a version with new parameters shows here what becomes of them. Whether what is
accepted is read at all is tried with a value that no parameter takes: whatever is passed over would be accepted.
"""

import inspect
import json
from collections.abc import Callable, Iterator
from typing import Any, get_args, get_type_hints

import pytest
from openai.resources.chat.completions import Completions as Chat
from openai.resources.completions import Completions
from openai.resources.embeddings import Embeddings
from openai.resources.responses import Responses
from openai.resources.responses.input_tokens import InputTokens
from openai.types import chat, responses
from openai.types.responses import response_reasoning_item_param
from typing_extensions import is_typeddict

from appliance.gateway.api.parameters import ACCEPTED_HINTS
from tests.support.gateway import TOKEN, Gateway
from tests.support.model_folders import MODEL
from tests.support.wire import exchange

HEADERS = (f"Authorization: Bearer {TOKEN}", "Content-Type: application/json")
NOT_SENT = {"self", "extra_headers", "extra_query", "extra_body", "timeout"}
NONSENSE = {"nonsense": [{}]}
HELLO: dict[str, Any] = {"role": "user", "content": "hello"}
ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": MODEL, "messages": [HELLO]},
    "/v1/completions": {"model": MODEL, "prompt": "hello"},
    "/v1/embeddings": {"model": MODEL, "input": "hello"},
    "/v1/responses": {"model": MODEL, "input": "hello"},
    "/v1/responses/input_tokens": {"model": MODEL, "input": "hello"},
}
SAMPLING = "frequency_penalty logit_bias presence_penalty seed stop temperature top_p"
HONOURED = {
    "/v1/chat/completions": f"""{SAMPLING} messages model logprobs max_completion_tokens max_tokens metadata modalities n
        parallel_tool_calls reasoning_effort response_format service_tier store stream stream_options tool_choice tools
        top_logprobs user verbosity""",
    "/v1/completions": f"{SAMPLING} model prompt best_of echo logprobs max_tokens n stream stream_options user",
    "/v1/embeddings": "input model dimensions encoding_format user",
    "/v1/responses": """background include input instructions max_output_tokens metadata model parallel_tool_calls
        previous_response_id prompt_cache_key reasoning safety_identifier service_tier store stream stream_options
        temperature text tool_choice tools top_logprobs top_p truncation user""",
    "/v1/responses/input_tokens": """input instructions model parallel_tool_calls previous_response_id reasoning text
        tool_choice tools truncation""",
}
"""Read: done as asked, or refused by name for the values that are not."""
CREATE: dict[str, Callable[..., Any]] = {
    "/v1/chat/completions": Chat.create,
    "/v1/completions": Completions.create,
    "/v1/embeddings": Embeddings.create,
    "/v1/responses": Responses.create,
    "/v1/responses/input_tokens": InputTokens.count,
}


def parameters() -> Iterator[tuple[str, str]]:
    """Every route with every parameter."""
    for route, create in CREATE.items():
        yield from ((route, name) for name in inspect.signature(create).parameters if name not in NOT_SENT)


def members(*kinds: Any) -> set[str]:
    """Of all the typed dictionaries in these types."""
    found: set[str] = set()
    for kind in kinds:
        found |= set(get_type_hints(kind)) if is_typeddict(kind) else members(*get_args(kind))
    return found


async def refusal(gateway: Gateway, route: str, body: dict[str, Any]) -> dict[str, Any] | None:
    """The error; None if it was accepted."""
    response = await exchange(gateway.port, "POST", route, headers=HEADERS, body=json.dumps(body).encode())
    error: dict[str, Any] | None = json.loads(response.body).get("error")
    assert (response.status == 400) is (error is not None)
    return error


@pytest.mark.parametrize(("route", "name"), list(parameters()))
async def test_no_parameter_is_passed_over(gateway: Gateway, route: str, name: str) -> None:
    """Nonsense is refused by the parameter's name; as unknown or unsupported, unless the table above has it."""
    error = await refusal(gateway, route, ASKED[route] | {name: NONSENSE})
    if name in ACCEPTED_HINTS and name not in HONOURED[route].split():
        assert error is None
        return
    assert error is not None
    assert str(error["param"]).startswith(name)
    is_foreign = error["code"] in ("unknown_parameter", "unsupported_parameter") and error["param"] == name
    assert is_foreign is (name not in HONOURED[route].split())


CALL = {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}
CHAT_PART, INPUT_PART = {"type": "text", "text": "a"}, {"type": "input_text", "text": "a"}
PLACES: dict[str, tuple[set[str], Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "chat message": (
        members(chat.ChatCompletionMessageParam),
        lambda wrong: ASKED["/v1/chat/completions"] | {"messages": [HELLO | wrong]},
    ),
    "part of a chat message": (
        members(chat.ChatCompletionContentPartTextParam),
        lambda wrong: ASKED["/v1/chat/completions"] | {"messages": [HELLO | {"content": [CHAT_PART | wrong]}]},
    ),
    "message item": (
        members(responses.EasyInputMessageParam, responses.ResponseOutputMessageParam),
        lambda wrong: ASKED["/v1/responses"] | {"input": [HELLO | wrong]},
    ),
    "part of a message item": (
        members(responses.ResponseInputTextParam, responses.ResponseOutputTextParam),
        lambda wrong: ASKED["/v1/responses"] | {"input": [HELLO | {"content": [INPUT_PART | wrong]}]},
    ),
    "reasoning item": (
        members(responses.ResponseReasoningItemParam),
        lambda wrong: ASKED["/v1/responses"] | {"input": [HELLO, {"type": "reasoning", "summary": []} | wrong]},
    ),
    "part of a reasoning item": (
        members(response_reasoning_item_param.Content),
        lambda wrong: (
            ASKED["/v1/responses"]
            | {"input": [{"type": "reasoning", "content": [{"type": "reasoning_text", "text": "a"} | wrong]}]}
        ),
    ),
    "call item": (
        members(responses.ResponseFunctionToolCallParam),
        lambda wrong: ASKED["/v1/responses"] | {"input": [CALL | wrong]},
    ),
    "tool": (
        members(responses.FunctionToolParam),
        lambda wrong: ASKED["/v1/responses"] | {"tools": [{"type": "function", "name": "f"} | wrong]},
    ),
}
"""Where a member may stand: which the SDK knows, and a request with one of them spoiled."""
FREE_FORM = ("parameters",)
HINTS = ("prompt_cache_breakpoint",)
"""What means nothing here, whatever it says."""


@pytest.mark.parametrize("place", PLACES)
async def test_no_member_of_a_message_is_passed_over(gateway: Gateway, place: str) -> None:
    """Nonsense in any member that the SDK knows is refused, but for hints, and a tool's schema, which may say anything."""
    names, spoiled = PLACES[place]
    assert len(names) > 1
    for name in sorted(names.difference(FREE_FORM)):
        body = spoiled({name: NONSENSE})
        route = "/v1/chat/completions" if "messages" in body else "/v1/responses"
        assert (await refusal(gateway, route, body) is None) is (name in HINTS), name
