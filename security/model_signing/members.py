"""Typed members of an untrusted JSON object; a refusal names where, what was expected and a bounded part of what came."""

from base64 import b64decode
from collections.abc import Mapping
from typing import Any

from security.errors import ModelSignatureRejected


class Members:
    """Reader of one JSON object of a signature."""

    def __init__(self, values: Any, where: str) -> None:
        if type(values) is not dict:
            raise ModelSignatureRejected(f"signature: {where}: expected an object")
        self._values: Mapping[str, Any] = values
        self._where = where

    def rejected(self, what: str) -> ModelSignatureRejected:
        """The error for this object, for the caller to raise."""
        return ModelSignatureRejected(f"signature: {self._where}: {what}")

    def has(self, key: str) -> bool:
        """Whether the member is there with a value other than null, which protobuf's JSON writes for an absent one."""
        return self._values.get(key) is not None

    def allow(self, *keys: str) -> None:
        """Refuse members of other names."""
        if unknown := set(self._values).difference(keys):
            raise self.rejected(f"unknown member {ascii(min(unknown))[:80]}")

    def text(self, key: str) -> str:
        """A string of at least one character."""
        value = self._values.get(key)
        if type(value) is not str or not value:
            raise self.rejected(f"{key}: expected a string")
        return value

    def constant(self, key: str, *expected: str) -> str:
        """One of some strings."""
        value = self._values.get(key)
        if type(value) is not str or value not in expected:
            raise self.rejected(f"{key}: expected {' or '.join(expected)}, found {ascii(value)[:80]}")
        return value

    def boolean(self, key: str) -> bool:
        """True or false."""
        value = self._values.get(key)
        if type(value) is not bool:
            raise self.rejected(f"{key}: expected true or false")
        return value

    def array(self, key: str, low: int, high: int) -> list[Any]:
        """An array of so many elements."""
        value = self._values.get(key)
        if type(value) is not list or not low <= len(value) <= high:
            raise self.rejected(f"{key}: expected an array of {low} to {high}")
        return value

    def nested(self, key: str) -> "Members":
        """The object under the key."""
        return Members(self._values.get(key), f"{self._where}.{key}")

    def data(self, key: str) -> bytes:
        """Bytes in standard base64 (RFC 4648 section 4)."""
        try:
            return b64decode(self.text(key), validate=True)
        except ValueError:
            raise self.rejected(f"{key}: expected base64") from None
