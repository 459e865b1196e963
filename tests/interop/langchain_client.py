"""LangChain's ChatOpenAI against an appliance; run by an environment of its own. Prints one JSON object of what it got.

Usage: langchain_client.py BASE_URL CA_FILE MODEL, with the token in OPENAI_API_KEY.
"""

import json
import ssl
import sys
from typing import Any

import httpx
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field


@tool
def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"Sunny in {city}"


class Trip(BaseModel):
    """A trip."""

    city: str = Field(max_length=20)
    days: int = Field(ge=1, le=7)


def main() -> None:
    """Ask in each way that applications do."""
    base_url, ca_file, model = sys.argv[1:]
    tls = ssl.create_default_context(cafile=ca_file)
    with httpx.Client(verify=tls) as client:
        chat = ChatOpenAI(
            model=model, base_url=base_url, http_client=client, temperature=0, max_tokens=80, max_retries=0
        )
        asked = [HumanMessage("What is the weather in Rome?")]
        plain = chat.invoke("What is Casemate?")
        streamed = "".join(str(chunk.content) for chunk in chat.stream("What is Casemate?"))
        calling = chat.bind_tools([get_weather])
        called = calling.invoke(asked)
        results = [ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"]) for call in called.tool_calls]
        after = calling.invoke([*asked, called, *results])
        trip: Any = chat.with_structured_output(Trip, method="json_schema").invoke("Three days in Rome")
        got = {
            "plain": plain.content,
            "usage": plain.usage_metadata,
            "streamed": streamed,
            "calls": [[call["name"], call["args"]] for call in called.tool_calls],
            "after": after.content,
            "trip": trip.model_dump(),
        }
    print(json.dumps(got))


if __name__ == "__main__":
    main()
