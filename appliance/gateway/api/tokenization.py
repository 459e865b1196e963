"""Prompts to token ids, off the event loop where they are long, so that one long prompt does not stop all streams."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from appliance.gateway.api.chat_request import ChatRequest, template_variables
from appliance.gateway.api.completion_request import Prompt
from appliance.gateway.errors import BadRequest
from appliance.gateway.models import ServedModel
from appliance.gateway.text.errors import TextRefused

LONG_CHARS = 4_096
"""From here on tokenizing takes a millisecond and more; to hand it to a thread takes less than a tenth of one."""

Result = TypeVar("Result")


class TokenizerThreads:
    """Two threads for long prompts: what waits for them waits there, not in the loop."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="tokenizer")

    async def chat(self, model: ServedModel, request: ChatRequest, context_length: int) -> list[int]:
        """Token ids of a conversation. Raises: BadRequest."""
        tools = request.described_tools
        num_chars = sum(_num_chars(message) for message in request.messages) + sum(len(str(tool)) for tool in tools)
        variables = template_variables(request, model.template.variables, reasons=model.forms.reasoning != "none")

        def render() -> list[int]:
            for message in request.messages:
                model.tokenizer.verify_may_fit(message["content"], context_length, "messages")
            return model.template.render(
                request.messages,
                tools,
                add_generation_prompt=request.add_generation_prompt,
                continues=request.fields.continue_final_message,
                variables=variables,
                context_length=context_length,
            )

        return await self._run(render, num_chars, "messages")

    async def prompt(
        self, model: ServedModel, prompt: Prompt, context_length: int, parameter: str, *, plain: bool = False
    ) -> list[int]:
        """Token ids of one prompt; ids are taken as they are. Raises: BadRequest."""
        if not isinstance(prompt, str):
            return prompt

        def encode() -> list[int]:
            model.tokenizer.verify_may_fit(prompt, context_length, parameter)
            return model.tokenizer.encode_plain(prompt) if plain else model.tokenizer.encode_prompt(prompt)

        return await self._run(encode, len(prompt), parameter)

    async def _run(self, work: Callable[[], Result], num_chars: int, parameter: str) -> Result:
        try:
            if num_chars < LONG_CHARS:
                return work()
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except TextRefused as refused:
            raise BadRequest(refused.code, str(refused), parameter=refused.parameter or parameter) from refused


def _num_chars(message: Mapping[str, Any]) -> int:
    """About so many."""
    return sum(len(value if isinstance(value, str) else str(value)) for value in message.values())
