"""The forms that calls and reasoning can have, by name: every process reads the configuration, and few need the parsers."""

from typing import Literal

CallForm = Literal["hermes", "qwen", "llama3_json", "mistral", "pythonic", "deepseek", "none"]
ReasoningForm = Literal["deepseek-r1", "qwen3", "none"]
