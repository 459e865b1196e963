"""Reasoning of responses, encrypted, for clients that send nothing else of it back.

Such clients know reasoning from an API that shows none of it: they drop its text, and keep `encrypted_content`. Ours holds that
text under the key of kept responses (`response_file`), bound to its tenant; so it comes back whether responses are kept or not, and
a model that calls tools keeps its thoughts. It hides nothing: whoever asks for it has the text beside it.
"""

import base64
import binascii

from appliance.gateway.api.parameters import parse_members
from appliance.gateway.api.response_file import ResponseFile
from appliance.gateway.api.response_turns import Item, ReasoningItem
from appliance.gateway.errors import BadRequest


class ReasoningSeal:
    """One tenant's."""

    def __init__(self, file: ResponseFile, tenant: str) -> None:
        self._file = file
        self._context = f"casemate reasoning {len(tenant)} {tenant}"

    def seal(self, text: str) -> str:
        """`encrypted_content` of a thought."""
        return base64.b64encode(self._file.seal(self._context, text.encode())).decode()

    def sealed(self, item: Item) -> Item:
        """An item with its `encrypted_content`, if it is one of reasoning."""
        if item["type"] != "reasoning" or "encrypted_content" in item:
            return item
        return item | {"encrypted_content": self.seal(parse_members(item, ReasoningItem, "").text)}

    def opened(self, item: Item, where: str) -> Item:
        """An item that came, with its text in the open. Raises: BadRequest for what was not encrypted here, for this tenant."""
        if item.get("type") != "reasoning" or item.get("encrypted_content") is None:
            return item
        given = parse_members(item, ReasoningItem, where)
        assert given.encrypted_content is not None
        text = self._open(given.encrypted_content)
        if text is None:
            place = f"{where}.encrypted_content"
            message = f"{place}: this was not encrypted by this appliance for this tenant"
            raise BadRequest("invalid_encrypted_content", message, parameter=place)
        shown = {name: value for name, value in item.items() if name != "encrypted_content"}
        return shown if given.content else shown | {"content": [{"type": "reasoning_text", "text": text}]}

    def _open(self, encrypted: str) -> str | None:
        try:
            sealed = base64.b64decode(encrypted, validate=True)
        except (binascii.Error, ValueError):
            return None
        text = self._file.unseal(self._context, sealed)
        return None if text is None else text.decode()
