"""Model folders with small tokenizers and nothing else, written for tests."""

import json
from collections.abc import Sequence
from pathlib import Path

from appliance.gateway.models import ServedModel
from appliance.gateway.text.template import load_chat_template
from appliance.gateway.text.tokenizer import load_tokenizer
from appliance.gateway.tools.forms import find_forms
from runtime.weights.config import GenerationDefaults

MODEL = "tiny"
EOS = "<|im_end|>"
CHAT_TEMPLATE = (
    "{%- if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif -%}"
    "{%- for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{%- for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor -%}"
    "<|im_end|>\n{% endfor -%}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif -%}"
)
SPECIALS = ("<|endoftext|>", "<|im_start|>", EOS)
MARKS = ("<tool_call>", "</tool_call>", "<think>", "</think>")


def byte_alphabet() -> dict[int, str]:
    """GPT-2's characters for bytes, made here anew."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + place) for place, byte in enumerate(others)}


def write_byte_level_model(
    folder: Path, *, merges: Sequence[tuple[str, str]] = (("t", "h"), ("th", "e"), ("i", "n"))
) -> Path:
    """A model folder with a byte-level BPE tokenizer and a chat template, and nothing else."""
    vocab = {character: byte for byte, character in sorted(byte_alphabet().items())}
    for left, right in merges:
        vocab[left + right] = len(vocab)
    added = []
    for content in (*SPECIALS, *MARKS):
        token = {"id": len(vocab) + len(added), "content": content, "special": content in SPECIALS}
        added.append(token | dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word"), False))
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": byte_level,
        "decoder": byte_level,
        "truncation": None,
        "padding": None,
        "model": {"type": "BPE", "vocab": vocab, "merges": [list(pair) for pair in merges]},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = {"eos_token": EOS, "bos_token": None, "chat_template": CHAT_TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def write_byte_fallback_model(folder: Path) -> Path:
    """A model folder with a small byte-fallback tokenizer in SentencePiece's style, which begins prompts with `<s>`."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁a", "a", "b", "é", "▁b", "ab"]
    added = [
        {
            "id": index,
            "content": words[index],
            "special": True,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "single_word": False,
        }
        for index in range(3)
    ]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {word: index for index, word in enumerate(words)},
            "merges": [["▁", "a"], ["▁", "b"], ["a", "b"]],
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


def load_model(folder: Path, name: str = MODEL) -> ServedModel:
    """A served model of that folder."""
    tokenizer = load_tokenizer(folder)
    template = load_chat_template(folder, tokenizer, max_chars=1 << 20, timeout_s=1.0)
    forms = find_forms(template.sources)
    return ServedModel(name, 1_700_000_000, tokenizer, template, GenerationDefaults(temperature=0.5), forms, 3)
