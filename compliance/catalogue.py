"""What is claimed: controls with who does what about them, and by what that is shown.

Identifiers and short titles are those of the catalogues; every other word is ours. The statuses:

| status | meaning |
|---|---|
| met | the product alone meets it, where its facts hold and its tests passed |
| shared | the product does its part, the customer must do theirs |
| customer | the customer's alone |
| not-met | the product does not meet it, and says so |
| not-applicable | the product has nothing that it is about |
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Status = Literal["met", "shared", "customer", "not-met", "not-applicable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """One thing that an assessor determines."""

    id: str
    status: Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """A control, requirement or article."""

    id: str
    title: str
    status: Status
    product: str
    """What Casemate does."""
    customer: str
    """What the customer must do."""
    tests: tuple[str, ...]
    """Node ids of tests that show it."""
    facts: tuple[str, ...]
    """Names of facts that must hold for the claim."""
    kinds: tuple[str, ...]
    """Kinds of log records that show it at work."""
    baselines: tuple[str, ...]
    """In which baselines it is, where the catalogue has some."""
    objectives: tuple[Objective, ...]
    """Empty where the catalogue has none."""
    points: int
    """What it weighs in the SPRS score; 0 where it has no weight."""

    @property
    def family(self) -> str:
        """`AC` of `AC-2(1)`, `3.1` of `3.1.12`, `Article 12` of `Article 12(2)`, the whole id of what has none."""
        if "-" in self.id:
            return self.id.partition("-")[0]
        parts = self.id.split(".")
        return ".".join(parts[:2]) if len(parts) == 3 and parts[0] == "3" else self.id.partition("(")[0]

    @property
    def is_claimed(self) -> bool:
        """The product says that it does something about it."""
        return self.status in ("met", "shared")


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """The controls of one publication, in its order."""

    name: str
    title: str
    href: str
    families: Mapping[str, str]
    """Titles of the families."""
    controls: Mapping[str, Control]
