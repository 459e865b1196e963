"""What all OSCAL documents share: identifiers that follow from the content, metadata, names of controls."""

import json
import re
import uuid
from collections.abc import Mapping
from typing import Any

from compliance.catalogue import Control
from compliance.frameworks import Framework
from compliance.period import format_instant

OSCAL_VERSION = "1.1.3"
NAMESPACE = "urn:casemate:oscal"
Json = dict[str, Any]
_ROOT = uuid.uuid5(uuid.NAMESPACE_URL, NAMESPACE)


class Identifiers:
    """UUIDs that are a function of the pack and of what they name (RFC 9562, version 5)."""

    def __init__(self, seed: str) -> None:
        self._space = uuid.uuid5(_ROOT, seed)

    def of(self, *parts: str) -> str:
        """The identifier of a thing; no two things may have the same parts."""
        return str(uuid.uuid5(self._space, "\x1f".join(parts)))


def encode(kind: str, document: Json) -> bytes:
    """A file with one document."""
    return json.dumps({kind: document}, indent=1, sort_keys=True, ensure_ascii=True).encode() + b"\n"


def metadata_of(title: str, made_at_ms: int, version: str) -> Json:
    """Title, time and versions."""
    return {
        "title": title,
        "last-modified": format_instant(made_at_ms),
        "version": version,
        "oscal-version": OSCAL_VERSION,
    }


def control_id(framework: Framework, control: Control) -> str:
    """The control in OSCAL's form, which begins with a letter: `au-9.3`, `sp_800_171_3.3.8`, `article_12.2`."""
    if framework.catalogue == "nist-800-171":
        return f"sp_800_171_{control.id}"
    return to_token(control.id)


def to_token(text: str) -> str:
    """Only what OSCAL takes in identifiers."""
    return re.sub(r"[^a-z0-9.\-]", "_", text.lower().replace("(", ".").replace(")", ""))


def objective_id(framework: Framework, control: Control, objective: str) -> str:
    """`sp_800_171_3.3.8_obj.a` of `3.3.8[a]`; the control's own where it has one determination."""
    letter = objective.removeprefix(control.id).strip("[]")
    whole = control_id(framework, control)
    return f"{whole}_obj.{letter}" if letter else f"{whole}_obj"


def prop(name: str, value: str) -> Json:
    """A property of ours. What OSCAL's namespace has no word for in that place is refused there by NIST's constraints."""
    return {"name": name, "ns": NAMESPACE, "value": value}


def select_controls(framework: Framework) -> Json:
    """`reviewed-controls`: all of the framework, with their objectives where it has some."""
    ids = [{"control-id": control_id(framework, control)} for control in framework.controls]
    selected: Json = {"control-selections": [{"include-controls": ids}]}
    if any(control.objectives for control in framework.controls):
        selected["control-objective-selections"] = [{"include-all": {}}]
    return selected


def props(values: Mapping[str, str]) -> list[Json]:
    """Properties of ours, in order; what is empty is left out."""
    return [prop(name, value) for name, value in values.items() if value]
