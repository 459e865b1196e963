"""One thing that was looked at, and what was found."""

from dataclasses import dataclass
from typing import Literal

Grade = Literal["ok", "note", "bad"]


@dataclass(frozen=True, slots=True)
class Finding:
    """In words for the person at the machine."""

    subject: str
    grade: Grade
    words: str
