"""Typed and bounded fields of an untrusted JSON object, each refusal naming file, key, what was expected and what came.

JSON's `null` means the same as an absent key, as it does in the configurations that transformers writes.
"""

import math
from collections.abc import Mapping
from typing import Any

from runtime.errors import CheckpointRejected


class Fields:
    """Reader of one JSON object. Methods with a `default` return it for an absent key; without one the key is required."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self._values = values
        self.where = where

    def has(self, key: str) -> bool:
        """Whether the key is there with a value other than null."""
        return self._values.get(key) is not None

    def names(self, key: str) -> bool:
        """Whether the key is there at all, null included."""
        return key in self._values

    def keys(self) -> list[str]:
        """All of them."""
        return list(self._values)

    def raw(self, key: str) -> Any:
        """The value as JSON gave it; None if absent."""
        return self._values.get(key)

    def rejected(self, key: str, expected: str) -> CheckpointRejected:
        """The error for a value that is not what was expected, for the caller to raise."""
        return CheckpointRejected(f"{self.where}: {key}: expected {expected}, found {self._shown(key)}")

    def integer(self, key: str, low: int, high: int, *, default: int | None = None) -> int:
        """An integer in [low, high]."""
        if not self.has(key) and default is not None:
            return default
        value = self._values.get(key)
        if type(value) is not int or not low <= value <= high:
            raise self.rejected(key, f"an integer in [{low}, {high}]")
        return value

    def number(self, key: str, low: float, high: float, *, default: float | None = None) -> float:
        """A finite number in [low, high]."""
        if not self.has(key) and default is not None:
            return default
        value = self._values.get(key)
        if value is None or type(value) not in (int, float) or not low <= value <= high or not math.isfinite(value):
            raise self.rejected(key, f"a number in [{low:g}, {high:g}]")
        return float(value)

    def boolean(self, key: str, *, default: bool) -> bool:
        """True or false."""
        if not self.has(key):
            return default
        value = self._values[key]
        if type(value) is not bool:
            raise self.rejected(key, "true or false")
        return value

    def text(self, key: str, *, default: str | None = None) -> str:
        """A string."""
        if not self.has(key) and default is not None:
            return default
        value = self._values.get(key)
        if type(value) is not str:
            raise self.rejected(key, "a string")
        return value

    def texts(self, key: str) -> list[str]:
        """A list of strings."""
        value = self._values.get(key)
        if type(value) is not list or not all(type(item) is str for item in value):
            raise self.rejected(key, "a list of strings")
        return value

    def nested(self, key: str) -> "Fields":
        """The object under the key."""
        value = self._values.get(key)
        if type(value) is not dict:
            raise self.rejected(key, "an object")
        return Fields(value, f"{self.where}: {key}")

    def ids(self, key: str, limit: int) -> tuple[int, ...]:
        """Token ids below `limit`: absent, one, or a list of them."""
        value = self._values.get(key)
        if value is None:
            return ()
        ids = value if type(value) is list else [value]
        if not all(type(item) is int and 0 <= item < limit for item in ids):
            raise self.rejected(key, f"token ids in [0, {limit})")
        return tuple(ids)

    def _shown(self, key: str) -> str:
        if key not in self._values:
            return "nothing"
        shown = repr(self._values[key])
        return shown if len(shown) <= 80 else f"{shown[:80]}…"
