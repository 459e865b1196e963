"""Anthropic's SDK against an appliance; run by an environment of its own. Prints one JSON object of what it got.

Usage: anthropic_client.py URL MODEL, with a static key in OPENAI_API_KEY.
"""

import json
import os
import sys
from typing import Any, Literal

import anthropic
from anthropic import beta_tool
from pydantic import BaseModel


class Small(BaseModel):
    """What no model can get wrong if it is held to it."""

    big: bool
    kind: Literal["a", "b"]


@beta_tool
def get_weather(city: str) -> str:
    """Get the weather of a city.

    Args:
        city: which one.
    """
    return f"Sunny in {city}"


def refusal(client: anthropic.Anthropic, **asked: Any) -> list[Any]:
    """What the SDK makes of an error."""
    try:
        client.messages.create(**asked)
    except anthropic.APIStatusError as error:
        return [type(error).__name__, error.type, bool(error.request_id)]
    return []


def main() -> None:
    """Ask in each way that applications do."""
    url, model = sys.argv[1:]
    key = os.environ["OPENAI_API_KEY"]
    client = anthropic.Anthropic(base_url=url, api_key=key, max_retries=0)
    question: dict[str, Any] = {"model": model, "max_tokens": 120, "extra_body": {"temperature": 0}}
    asked: list[Any] = [{"role": "user", "content": "What is Casemate?"}]
    weather: list[Any] = [{"role": "user", "content": "What is the weather in Rome?"}]
    plain = client.messages.create(messages=asked, **question)
    with client.messages.stream(messages=asked, **question) as stream:
        streamed = "".join(stream.text_stream)
        usage = stream.get_final_message().usage
    called = client.messages.create(messages=weather, tools=[get_weather.to_dict()], **question)
    runner = client.beta.messages.tool_runner(messages=weather, tools=[get_weather], thread=False, **question)
    stopped = client.messages.create(
        messages=asked, system=[{"type": "text", "text": "Be brief."}], stop_sequences=["runtime"], **question
    )
    counted = client.messages.count_tokens(model=model, messages=asked)
    structured = client.messages.parse(model=model, max_tokens=60, messages=asked, output_format=Small)
    stranger = anthropic.Anthropic(base_url=url, api_key="cm-nobody", max_retries=0)
    # Before 1.0 the SDK put its key elsewhere, as do clients that are written without it.
    older = client.with_options(default_headers={"Authorization": anthropic.Omit(), "X-Api-Key": key})
    got = {
        "plain": plain.content[0].text,
        "request": [plain._request_id, plain.id],
        "usage": [plain.usage.input_tokens, plain.usage.output_tokens],
        "streamed": streamed,
        "streamed_usage": usage.output_tokens,
        "called": [[block.name, block.input] for block in called.content if block.type == "tool_use"],
        "after": runner.until_done().content[0].text,
        "stopped": [stopped.stop_reason, stopped.stop_sequence],
        "counted": counted.input_tokens,
        "structured": structured.parsed_output.model_dump(),
        "older": older.messages.create(messages=asked, **question).content[0].text,
        "refused": [
            refusal(client, messages=asked, **{**question, "model": "none"}),
            refusal(client, messages=[], **question),
            refusal(stranger, messages=asked, **question),
        ],
    }
    print(json.dumps(got))


if __name__ == "__main__":
    main()
