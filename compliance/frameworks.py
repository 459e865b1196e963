"""What a pack can be made for: a catalogue, or a part of it, under the name that assessors use."""

from dataclasses import dataclass
from types import MappingProxyType

from compliance.catalogue import Control
from compliance.loading import load_catalogues

_DOMAINS = MappingProxyType(
    {
        "3.1": "AC", "3.2": "AT", "3.3": "AU", "3.4": "CM", "3.5": "IA", "3.6": "IR", "3.7": "MA", "3.8": "MP", "3.9": "PS",
        "3.10": "PE", "3.11": "RA", "3.12": "CA", "3.13": "SC", "3.14": "SI",
    }
)  # fmt: skip
"""CMMC's names of the families of SP 800-171."""


@dataclass(frozen=True, slots=True)
class Framework:
    """One of FRAMEWORKS.

    Attributes:
        baseline: of the catalogue; empty for all of it.
        is_scored: whether the DoD assessment methodology gives points for it.
        profile: where the publisher has the selection, for OSCAL.
    """

    name: str
    title: str
    catalogue: str
    baseline: str
    is_scored: bool
    profile: str

    @property
    def controls(self) -> tuple[Control, ...]:
        """Its controls, in the publication's order."""
        every = load_catalogues()[self.catalogue].controls.values()
        return tuple(control for control in every if not self.baseline or self.baseline in control.baselines)

    @property
    def families(self) -> dict[str, str]:
        """Titles of its families, in order."""
        return dict(load_catalogues()[self.catalogue].families)

    def label_of(self, control: Control) -> str:
        """What assessors call it: `AU.L2-3.3.8` for CMMC."""
        return f"{_DOMAINS[control.family]}.L2-{control.id}" if self.name == "cmmc-l2" else control.id


_NIST = "https://raw.githubusercontent.com/usnistgov/oscal-content/main/nist.gov/SP800-53/rev5/json"
FRAMEWORKS = MappingProxyType(
    {
        framework.name: framework
        for framework in (
            Framework(
                "cmmc-l2", "CMMC 2.0 level 2", "nist-800-171", "", True, "https://doi.org/10.6028/NIST.SP.800-171r2"
            ),
            Framework(
                "800-171",
                "NIST SP 800-171 revision 2",
                "nist-800-171",
                "",
                True,
                "https://doi.org/10.6028/NIST.SP.800-171r2",
            ),
            Framework(
                "800-53-moderate",
                "NIST SP 800-53 revision 5, moderate baseline",
                "nist-800-53",
                "moderate",
                False,
                f"{_NIST}/NIST_SP-800-53_rev5_MODERATE-baseline_profile.json",
            ),
            Framework(
                "800-53-high",
                "NIST SP 800-53 revision 5, high baseline",
                "nist-800-53",
                "high",
                False,
                f"{_NIST}/NIST_SP-800-53_rev5_HIGH-baseline_profile.json",
            ),
            Framework(
                "iso-42001",
                "ISO/IEC 42001:2023, A.6.2.8",
                "iso-42001",
                "",
                False,
                "https://www.iso.org/standard/81230.html",
            ),
            Framework(
                "eu-ai-act",
                "EU AI Act, articles 12, 19 and 26(6)",
                "eu-ai-act",
                "",
                False,
                "https://eur-lex.europa.eu/eli/reg/2024/1689/oj",
            ),
        )
    }
)
