"""OpenAI's Codex and Anthropic's Claude Code, unchanged, against a gateway: loops with their own tools, to the end.

Their prompts have more tokens than the demo's model can read, so the gateway's engine is one that says what it is told to.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.interop.conftest import coding_agent
from tests.support.gateway import TOKEN, Gateway, running_gateway
from tests.support.gateway_peers import Reply
from tests.support.model_folders import CHAT_TEMPLATE, MODEL, write_byte_level_model

CALL_BEGIN, CALL_END, THINK, END_THINK, END = 262, 263, 264, 265, 261
SAID = "{{ message.content }}"
THINKING = CHAT_TEMPLATE.replace(
    SAID, "{% if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif %}" + SAID
)
Said = list[str | dict[str, Any]]

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    """Of a model whose tokens are bytes, that reads many of them, and thinks."""
    folder = write_byte_level_model(tmp_path / "model")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": THINKING}))
    async with running_gateway(folder, context_length=400_000) as running:
        yield running


def says(gateway: Gateway, *answers: Said) -> None:
    """Let the engine give these answers, one after the other: text, and calls, each after a thought."""
    coming = iter(answers)
    numbers = count(1)

    def reply(submit: Any, choice: int) -> Reply:
        ids = [THINK, *f"Thought {next(numbers)}.".encode(), END_THINK]
        for part in next(coming):
            ids += [*part.encode()] if isinstance(part, str) else [CALL_BEGIN, *json.dumps(part).encode(), CALL_END]
        return Reply([*ids, END])

    gateway.engine.reply = reply


def prompts_of(gateway: Gateway) -> list[str]:
    """What the model was asked, as text."""
    bytes_of = gateway.model.tokenizer.vocabulary.bytes_of
    prompts = [submit.prompt for submit in gateway.engine.submits]
    ids = [[int.from_bytes(one[at : at + 4], "little") for at in range(0, len(one), 4)] for one in prompts]
    return [b"".join(map(bytes_of, one)).decode() for one in ids]


async def run(command: list[str], place: Path, **environment: str) -> str:
    """What the agent said last. It finds nothing of ours at home."""
    (place / "work").mkdir()
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=place / "work",
        env={"PATH": os.environ["PATH"], "HOME": str(place), **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, out.decode()[-2000:] + err.decode()[-4000:]
    return out.decode().strip()


async def test_codex(gateway: Gateway, tmp_path: Path) -> None:
    """Two commands at once, an agent by its namespace, and a result that says what went wrong. Its thoughts stay with the model."""
    program = coding_agent("@openai/codex/bin/codex.js")
    (tmp_path / ".codex").mkdir()
    (tmp_path / ".codex" / "config.toml").write_text(
        f"""
model = "{MODEL}"
model_provider = "casemate"
web_search = "disabled"
[model_providers.casemate]
name = "Casemate"
base_url = "{gateway.url}/v1"
env_key = "CASEMATE_KEY"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
"""
    )
    commands: Said = [{"name": "exec_command", "arguments": {"cmd": f"expr 6 '*' {by}"}} for by in (7, 8)]
    asked: Said = ["Now the other. ", {"name": "multi_agent_v1.close_agent", "arguments": {"target": "nobody"}}]
    says(gateway, ["Let me see. ", *commands], asked, ["All is done."])
    options = ["--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "What is six times seven?"]
    assert await run([*program, "exec", *options], tmp_path, CASEMATE_KEY=TOKEN) == "All is done."
    first, second, third = prompts_of(gateway)
    assert '"name": "multi_agent_v1.close_agent"' in first
    assert "user\nWhat is six times seven?<|im_end|>" in first
    assert ("\n42\n" in second, "\n48\n" in second) == (True, True)
    assert '<tool_call>{"name": "multi_agent_v1.close_agent", "arguments": {"target": "nobody"}}</tool_call>' in third
    assert "invalid agent id" in third
    assert [third.count(f"<think>Thought {number}.</think>") for number in (1, 2, 3)] == [1, 1, 0]


async def test_claude_code(gateway: Gateway, tmp_path: Path) -> None:
    """A command and a file, read together, then the answer."""
    program = coding_agent("@anthropic-ai/claude-code/cli-wrapper.cjs")
    file = tmp_path / "note.txt"
    file.write_text("a note of ours")
    calls: Said = [
        {"name": "Bash", "arguments": {"command": "expr 6 '*' 7", "description": "Multiply"}},
        {"name": "Read", "arguments": {"file_path": str(file)}},
    ]
    says(gateway, ["Let me see. ", *calls], ["All is done."])
    options = ["-p", "What is six times seven?", "--allowedTools", "Bash", "Read"]
    environment = dict.fromkeys(("ANTHROPIC_MODEL", "ANTHROPIC_SMALL_FAST_MODEL"), MODEL) | {
        "ANTHROPIC_BASE_URL": gateway.url,
        "ANTHROPIC_AUTH_TOKEN": TOKEN,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    assert await run([*program, *options], tmp_path, **environment) == "All is done."
    first, second = prompts_of(gateway)
    assert "What is six times seven?<|im_end|>" in first
    assert "tool\n42<|im_end|>" in second
    assert "<think>Thought 1.</think>" in second
    assert "a note of ours" in second
