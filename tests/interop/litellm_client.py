"""LiteLLM as a client, by each of the providers that an appliance can be spoken to; run by an environment of its own.

Usage: litellm_client.py URL MODEL, with a static key in OPENAI_API_KEY. Prints one JSON object of what it got.
"""

import json
import os
import sys
from typing import Any, Literal

import litellm
from pydantic import BaseModel


class Small(BaseModel):
    """What no model can get wrong if it is held to it."""

    big: bool
    kind: Literal["a", "b"]


TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
ASKED = [{"role": "user", "content": "What is Casemate?"}]
WEATHER = [{"role": "user", "content": "What is the weather in Rome?"}]


def refusal(messages: list[Any], **options: Any) -> str:
    """What LiteLLM makes of an error."""
    try:
        litellm.completion(messages=messages, **options)
    except Exception as error:
        return type(error).__name__
    return ""


def ask(options: dict[str, Any]) -> dict[str, Any]:
    """By one provider."""
    plain = litellm.completion(messages=ASKED, **options)
    parts = list(litellm.completion(messages=ASKED, stream=True, **options))
    called = litellm.completion(messages=WEATHER, tools=[TOOL], **options).choices[0].message
    call = called.tool_calls[0]
    results = [{"role": "tool", "tool_call_id": call.id, "content": "Sunny in Rome"}]
    after = litellm.completion(messages=[*WEATHER, called, *results], tools=[TOOL], **options)
    structured = litellm.completion(messages=ASKED, response_format=Small, **options)
    return {
        "plain": plain.choices[0].message.content,
        "usage": plain.usage.completion_tokens,
        "streamed": "".join(part.choices[0].delta.content or "" for part in parts if part.choices),
        "called": [call.function.name, json.loads(call.function.arguments)],
        "after": bool(after.choices[0].message.content),
        "structured": Small.model_validate_json(structured.choices[0].message.content).model_dump(),
        "refused": [
            refusal(ASKED, **{**options, "model": options["model"].replace("casemate-demo", "none")}),
            refusal(ASKED, **{**options, "api_key": "nobody"}),
            refusal([{"role": "user", "content": "word " * 4000}], **options),
        ],
    }


def main() -> None:
    """Ask by each provider, and for embeddings."""
    url, model = sys.argv[1:]
    litellm.suppress_debug_info = True
    key = os.environ["OPENAI_API_KEY"]
    bases = {"openai": f"{url}/v1", "hosted_vllm": f"{url}/v1", "anthropic": url}
    options = {"api_key": key, "max_tokens": 120, "temperature": 0, "num_retries": 0}
    got: dict[str, Any] = {
        provider: ask({"model": f"{provider}/{model}", "api_base": base, **options}) for provider, base in bases.items()
    }
    embedded = litellm.embedding(
        model=f"openai/{model}", api_base=bases["openai"], api_key=key, input=["Rome", "Paris"]
    )
    got["embedded"] = len(embedded.data)
    print(json.dumps(got))


if __name__ == "__main__":
    main()
