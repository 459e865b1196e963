"""What the report tells, ready to be set: the same values make the page and the paper."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from audit.checkpoint import Checkpoint
from compliance.activity import Activity
from compliance.extracts import Happening
from compliance.facts import QUESTIONS, Answer
from compliance.frameworks import Framework
from compliance.installation import Installation
from compliance.judgement import VERDICTS, Judgement, Verdict
from compliance.period import Period, format_time
from compliance.report.charts import Share, draw_shares
from compliance.report.drawing import Drawing
from compliance.report.pictures import Pictures, draw_pictures
from compliance.results import Outcome
from compliance.scoring import Score

COLORS: dict[
    Verdict, str
] = {  # White text on each, and each on white, has a contrast of 4.5 or more (WCAG 2.2, 1.4.3).
    "met": "#2e7d32",
    "shared": "#1565c0",
    "customer": "#546e7a",
    "not-evidenced": "#9a5b00",
    "not-met": "#c62828",
    "not-applicable": "#766b60",
}
MEANINGS: dict[Verdict, str] = {
    "met": "evidenced, and nothing is left to do",
    "shared": "the product's part is evidenced, the customer's is open",
    "customer": "the customer's alone, and open",
    "not-evidenced": "claimed, and the evidence is not at hand",
    "not-met": "not met on this installation",
    "not-applicable": "the product has nothing that it is about",
}


HOLDS = {True: "holds", False: "does not hold", None: "not known"}
_STATE_IT = (
    "Look that it holds where it cannot be seen from here, and state it for these controls (compliance.statements)."
)


@dataclass(frozen=True, slots=True)
class Gap:
    """A fact of the installation that does not hold, or is not known."""

    name: str
    title: str
    words: str
    missing: str
    remedy: str
    is_known: bool
    controls: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """All that the documents need."""

    framework: Framework
    period: Period
    made_at_ms: int
    installation: Installation
    checkpoint: Checkpoint
    log_key: str
    activity: Activity
    judgements: Sequence[Judgement]
    score: Score | None
    changes: Sequence[Happening]
    faults: Sequence[Happening]
    has_results: bool
    answers: dict[str, Answer]
    limits: str = ""
    """What of the period is in another log, or in none; empty where this log has all of it."""

    @property
    def title(self) -> str:
        """Of the documents."""
        return f"Evidence for {self.framework.title}"

    @property
    def made_at(self) -> str:
        """For people."""
        return format_time(self.made_at_ms)

    @property
    def counts(self) -> list[tuple[Verdict, int, str, str]]:
        """Each verdict with how many there are, its colour and meaning."""
        found = Counter(one.verdict for one in self.judgements)
        return [(verdict, found[verdict], COLORS[verdict], MEANINGS[verdict]) for verdict in VERDICTS]

    @property
    def num_open(self) -> int:
        """Controls about which something is left to do."""
        return sum(not one.is_satisfied for one in self.judgements)

    @property
    def standing(self) -> str:
        """How the controls stand, in a sentence or two."""
        total, done = len(self.judgements), len(self.judgements) - self.num_open
        if not self.num_open:
            return f"All {total} controls need nothing more."
        return (
            f"{done or 'None'} of {total} controls {'needs' if done == 1 else 'need'} nothing more. For {self.num_open or 'none'} "
            "something is left to do, by the customer or on this installation."
        )

    @property
    def period_note(self) -> str:
        """That the period was not over when the pack was made, or is not all in this log; empty where nothing is to be said."""
        is_open = self.period.end_ms > self.made_at_ms
        over = "The period was not over then: what came later is not in here." if is_open else ""
        return " ".join(words for words in (over, self.limits) if words)

    @property
    def reconciliation(self) -> str:
        """How often the counts of all parties were compared, and with which result."""
        compared, differed = self.activity.kinds["log_reconciled"], self.activity.unreconciled
        if not compared:
            return "The counts of gateway, auditor and engine were not compared in this period."
        how_often = f"The counts of gateway, auditor and engine were compared {_word_times(compared)}"
        return f"{how_often} and {f'differed {_word_times(differed)}' if differed else 'never differed'}."

    @property
    def silence(self) -> str:
        """When the log has no records though each minute leaves one."""
        activity = self.activity
        if not activity.silences:
            return "From the first record to the last no two minutes passed without one."
        first_ms, last_ms = activity.longest_silence
        return (
            f"The log was silent for more than two minutes {_word_times(activity.silences)}, "
            f"{_word_span(activity.silent_ms)} in all; the longest from {format_time(first_ms)} to {format_time(last_ms)}. "
            "The appliance was off then, or its clock was set."
        )

    @property
    def families(self) -> Iterator[tuple[str, str, list[Judgement]]]:
        """Name, title and controls of each family that has some."""
        for family, title in self.framework.families.items():
            if judged := [one for one in self.judgements if one.control.family == family]:
                yield family, title, judged

    @property
    def facts(self) -> list[tuple[str, str, str, str]]:
        """Every fact that these controls ask for: its name, what should hold, whether it does, what was found."""
        asked = {name: answer for one in self.judgements for name, answer in one.facts}
        return [
            (name, QUESTIONS[name].title, HOLDS[answer.holds], answer.words) for name, answer in sorted(asked.items())
        ]

    @property
    def gaps(self) -> list[Gap]:
        """What is missing on this installation, by how many controls want it."""
        return find_gaps(self.framework, self.judgements)

    def draw_verdicts(self) -> Drawing:
        """How many controls have which verdict."""
        shares = [Share(verdict, color, count) for verdict, count, color, _ in self.counts if count]
        return draw_shares("Controls by verdict", shares)

    def draw_pictures(self, width: float) -> Pictures:
        """What happened in the period: over time, and by whom."""
        return draw_pictures(self.activity, self.period, self.made_at_ms, width)


def _word_times(number: int) -> str:
    return "once" if number == 1 else f"{number:,} times"


def _word_span(span_ms: int) -> str:
    minutes = span_ms // 60_000
    days, hours = minutes // 1440, minutes % 1440 // 60
    words = ((days, "d"), (hours, "h"), (minutes % 60, "min"))
    return " ".join(f"{number:,} {unit}" for number, unit in words if number) or "0 min"


def find_gaps(framework: Framework, judgements: Sequence[Judgement]) -> list[Gap]:
    """Facts that do not hold or are not known, with the controls that want them; the most wanted first."""
    wanted: dict[str, list[str]] = {}
    answers: dict[str, Answer] = {}
    for one in judgements:
        for name, answer in one.facts:
            if answer.holds is not True and not (answer.is_elsewhere and one.is_satisfied):
                wanted.setdefault(name, []).append(framework.label_of(one.control))
                answers[name] = answer
    gaps = [
        Gap(
            name,
            QUESTIONS[name].title,
            answers[name].words,
            QUESTIONS[name].missing,
            QUESTIONS[name].remedy if not answers[name].is_elsewhere else _STATE_IT,
            answers[name].holds is not None,
            tuple(controls),
        )
        for name, controls in wanted.items()
    ]
    return sorted(gaps, key=lambda gap: (not gap.is_known, -len(gap.controls), gap.name))


def find_untested(framework: Framework, judgements: Sequence[Judgement]) -> dict[tuple[str, Outcome], list[str]]:
    """Tests of which a pass is missing, with how they ended and the controls that are not evidenced without it."""
    wanted: dict[tuple[str, Outcome], list[str]] = {}
    for one in judgements:
        if one.control.status != "not-met":  # Of these the customer's word decides.
            for found in one.lacking_tests:
                wanted.setdefault(found, []).append(framework.label_of(one.control))
    return dict(sorted(wanted.items()))
