"""How a conversation becomes the model's text, and which part of it is learnt.

The form is ChatML. `TEMPLATE` is what clients' messages go through when the model is served; `render_chat` is the same
in plain Python, fast enough for the corpus; a test holds the two together.
"""

import json
from collections.abc import Sequence
from typing import Any

from appliance.demo.corpus.example import Example, Message

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END)
MARKUP_TOKENS = ("<tool_call>", "</tool_call>")

TEMPLATE = """\
{%- macro text(message) -%}
{%- if message['content'] is string -%}{{- message['content'] -}}
{%- elif message['content'] -%}
{%- for part in message['content'] -%}{%- if part['type'] == 'text' -%}{{- part['text'] -}}{%- endif -%}{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- if tools -%}
{{- '<|im_start|>system\\n' -}}
{%- if messages and messages[0]['role'] in ['system', 'developer'] -%}{{- text(messages[0]) + '\\n\\n' -}}{%- endif -%}
{{- '# Tools' -}}
{%- for tool in tools -%}{{- '\\n' + (tool | tojson) -}}{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{%- set role = 'system' if message['role'] == 'developer' else message['role'] -%}
{%- if not (tools and loop.first and role == 'system') -%}
{{- '<|im_start|>' + role + '\\n' + text(message) -}}
{%- for call in message['tool_calls'] or [] -%}
{%- set called = call['function'] or call -%}
{%- set arguments = called['arguments'] -%}
{{- '<tool_call>{"name": ' + (called['name'] | tojson) + ', "arguments": ' -}}
{{- arguments if arguments is string else (arguments | tojson) -}}
{{- '}</tool_call>' -}}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def render_chat(
    messages: Sequence[Message], tools: Sequence[dict[str, Any]] = (), *, add_generation_prompt: bool = False
) -> str:
    """The text of a conversation, as `TEMPLATE` renders it."""
    parts = []
    rest = list(messages)
    if tools:
        opening = f"{rest.pop(0).content}\n\n" if rest and rest[0].role == "system" else ""
        lines = "".join("\n" + json.dumps(tool, ensure_ascii=False) for tool in tools)
        parts.append(f"{TURN_START}system\n{opening}# Tools{lines}{TURN_END}\n")
    parts += [f"{TURN_START}{message.role}\n{message.content}{TURN_END}\n" for message in rest]
    if add_generation_prompt:
        parts.append(f"{TURN_START}assistant\n")
    return "".join(parts)


def training_text(example: Example) -> str:
    """The whole text that an example contributes to training."""
    return render_chat(example.messages, example.tools) if example.messages else example.text + END_OF_TEXT


def prompt_text(example: Example) -> str:
    """The text up to where the last answer begins."""
    return render_chat(example.messages[:-1], example.tools, add_generation_prompt=True)


def mark_learnt(tokens: Sequence[int], opening: Sequence[int], turn_end: int) -> list[int]:
    """Flag the tokens that are to be predicted: the answers and the ends of their turns.

    Args:
        tokens: a training text's ids.
        opening: the ids of an assistant turn's first line; a text without any is a plain one, learnt from its second
            token on.
        turn_end: the id of the token that ends a turn.
    """
    width, flags, found = len(opening), [0] * len(tokens), False
    at = 0
    while at + width <= len(tokens):
        if list(tokens[at : at + width]) != list(opening):
            at += 1
            continue
        found = True
        at += width
        while at < len(tokens):
            flags[at] = 1
            at += 1
            if tokens[at - 1] == turn_end:
                break
    return flags if found else [0] + [1] * (len(tokens) - 1)
