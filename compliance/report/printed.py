"""The report on paper: the same content as the page, in the same order."""

from itertools import zip_longest

from compliance.judgement import Judgement
from compliance.report.content import COLORS, HOLDS, Content
from compliance.report.paper import FAINT, HALF_WIDTH, Cell, Paper
from compliance.scoring import CLOSED_WITHIN_DAYS, CONDITIONAL


def print_report(content: Content) -> bytes:
    """`report.pdf`."""
    paper = Paper(content.title, f"{content.title}, {content.period.words}")
    _set_summary(paper, content)
    _set_gaps(paper, content)
    _set_activity(paper, content)
    _set_log(paper, content)
    _set_controls(paper, content)
    _set_facts(paper, content)
    _set_plan(paper, content)
    _set_inventory(paper, content)
    _set_verification(paper)
    return paper.encode(content.made_at_ms)


def _set_summary(paper: Paper, content: Content) -> None:
    installation = content.installation
    paper.heading(content.title, size=20)
    paper.paragraph(
        f"{content.period.words}. Made at {content.made_at} by Casemate {installation.version}, which runs in "
        f"{installation.mode} mode. {content.period_note}",
        color=FAINT,
    )
    paper.paragraph(f"{content.standing} A verdict is what the evidence in this pack shows, and no certificate.")
    paper.picture(content.draw_verdicts())
    rows: list[list[str | Cell]] = [
        [Cell(verdict, color, True), str(count), meaning] for verdict, count, color, meaning in content.counts
    ]
    paper.table(["Verdict", "Controls", "Meaning"], [20, 12, 68], rows, size=8.5)
    if content.score is not None:
        score = content.score
        paper.paragraph(
            f"SPRS score as it stands: {score.now}. Attainable once the customer's parts are done: {score.attainable} of 110. "
            f"Assessment objectives satisfied: {score.objectives_satisfied} of {score.objectives_total}.",
            size=10,
            is_bold=True,
        )
        if not score.has_plan:
            paper.paragraph(
                "There is no score to submit yet: without a system security plan (3.12.4), which nobody has stated, the number is "
                "for orientation.",
                is_bold=True,
            )
        paper.paragraph(
            f"What nobody has stated counts as not met; what does not apply counts as met. CMMC's conditional status wants "
            f"{CONDITIONAL} points or more, and that what waits in the plan of action is closed within {CLOSED_WITHIN_DAYS} days."
        )
    if not content.has_results:
        paper.paragraph(
            "No test results of this build were at hand: nothing that rests on tests counts as evidenced.", is_bold=True
        )


def _set_gaps(paper: Paper, content: Content) -> None:
    paper.heading("What is missing on this installation")
    if not content.gaps:
        paper.paragraph("Every fact that these controls ask for holds.")
        return
    rows = [[gap.title, f"{gap.words}. {gap.missing}", gap.remedy, _join(gap.controls)] for gap in content.gaps]
    paper.table(
        ["What should hold", "What was found, and why it matters", "What to do", "Wanted by"], [22, 32, 28, 18], rows
    )


def _set_activity(paper: Paper, content: Content) -> None:
    activity = content.activity
    paper.heading("What happened")
    paper.paragraph(
        f"{activity.num_records:,} records, each of them verified against the signed tree. Requests that ended: "
        f"{activity.outcomes.total():,}, with {activity.prompt_tokens:,} tokens asked and {activity.output_tokens:,} answered. "
        f"Sign-ins, tokens and requests refused: {activity.refusals.total():,}. {content.reconciliation} {content.silence} "
        f"Records that could not be read: {activity.unreadable}."
    )
    pictures = content.draw_pictures(HALF_WIDTH)
    if pictures.span:
        paper.paragraph(pictures.span, color=FAINT)
    paper.pairs(pictures.drawings)
    if pictures.absent:
        paper.paragraph(f"None in this period: {', '.join(pictures.absent)}.", color=FAINT)
    for title, happenings in (("Faults", content.faults), ("Changes", content.changes)):
        paper.heading(f"{title}, the newest first", size=10)
        rows = [[str(one.index), one.time, one.kind, one.actor, one.target] for one in happenings]
        if rows:
            paper.table(["Record", "When", "What", "By whom", "About"], [10, 24, 22, 20, 24], rows)
        else:
            paper.paragraph("None in this period.")


def _set_log(paper: Paper, content: Content) -> None:
    checkpoint = content.checkpoint
    paper.heading("The log, and how far it can be believed")
    rows = [
        ["Name", checkpoint.origin],
        ["Signed tree", f"{checkpoint.size:,} records, root {checkpoint.root.hex()}"],
        ["Key", content.log_key],
        ["Records of the period", f"{content.activity.start:,} to {content.activity.end - 1:,}"],
        ["Witness", content.answers["witness"].words],
    ]
    paper.table(["", ""], [20, 80], rows)
    paper.paragraph(
        "That nothing in this range was altered, left out or moved follows from the signed tree. That the tree is the only one "
        "this log ever had follows from a witness, or from a checkpoint that somebody kept elsewhere."
    )
    kinds = [[kind, f"{count:,}"] for kind, count in sorted(content.activity.kinds.items())]
    half = -(-len(kinds) // 2)
    pairs = [[*left, *right] for left, right in zip_longest(kinds[:half], kinds[half:], fillvalue=["", ""])]
    paper.table(["Kind of record", "Records"] * 2, [32, 18, 32, 18], pairs)


def _set_controls(paper: Paper, content: Content) -> None:
    paper.heading("Every control", room=140)
    paper.paragraph(
        "Evidence is tests of this build, whose names are in report.html and in oscal/assessment-results.json; facts of this "
        "installation, which are told below; and kinds of records with how many the period has, the newest of which are "
        "in log/extracts."
    )
    for family, title, judged in content.families:
        paper.heading(family if family == title else f"{family} {title}", size=10)
        rows = [_control_row(content, one) for one in judged]
        heads = ["Control", "Verdict", "What Casemate does", "What the customer must do", "Evidence"]
        paper.table(heads, [17, 12, 30, 23, 18], rows, size=7)


def _control_row(content: Content, one: Judgement) -> list[str | Cell]:
    evidence = [f"{one.tests_in_words}."] if one.tests else []
    evidence += [f"{name}: {HOLDS[answer.holds]}." for name, answer in one.facts]
    evidence += [f"{kind}: {count:,}." for kind, count in one.kinds]
    return [
        f"{content.framework.label_of(one.control)} {one.control.title}",
        Cell(one.verdict, COLORS[one.verdict], True),
        " ".join([one.control.product or "–", *one.own.reasons]).replace("`", ""),
        (one.control.customer or "–").replace("`", ""),
        " ".join(evidence) or "–",
    ]


def _set_facts(paper: Paper, content: Content) -> None:
    paper.heading("Facts of this installation")
    paper.paragraph(
        f"As they were found at {content.made_at}, when this pack was made, and not over the whole period; what was changed "
        "in it is told above, and in full by the records. Only what these controls ask for."
    )
    rows = [list(fact) for fact in content.facts]
    if rows:
        paper.table(["Fact", "What should hold", "Answer", "What was found"], [18, 36, 12, 34], rows)
    else:
        paper.paragraph("These controls ask for none.")


def _set_plan(paper: Paper, content: Content) -> None:
    paper.heading("Plan of action")
    costs = {cost.id: cost for cost in content.score.deductions} if content.score is not None else {}
    rows: list[list[str | Cell]] = []
    for one in content.judgements:
        if one.verdict in ("not-met", "not-evidenced"):
            cost = costs.get(one.control.id)
            rows.append(
                [
                    content.framework.label_of(one.control),
                    Cell(one.verdict, COLORS[one.verdict], True),
                    " ".join(one.own.reasons),
                    f"{cost.points} {cost.rule}" if cost is not None else "–",
                    ("yes" if cost.may_wait else "no") if cost is not None else "–",
                ]
            )
    if rows and content.score is not None:
        paper.table(["Control", "Verdict", "Why", "Points", "May wait"], [13, 12, 43, 23, 9], rows)
    elif rows:
        paper.table(["Control", "Verdict", "Why"], [14, 13, 73], [row[:3] for row in rows])
    else:
        paper.paragraph("Nothing is not met, and nothing is without evidence.")


def _set_inventory(paper: Paper, content: Content) -> None:
    installation = content.installation
    paper.heading("People, programs and keys")
    people = [
        [one.login, one.role, one.state, one.second_factor, one.granted_by, one.approved_by or "–"]
        for one in installation.people
    ]
    if people:
        paper.table(
            ["Login", "Role", "State", "Second factor", "Granted by", "Agreed by"], [20, 12, 18, 14, 18, 18], people
        )
    programs = [
        [one.client_id, one.role, one.state, one.authentication, one.granted_by] for one in installation.programs
    ]
    if programs:
        paper.table(["Client", "Role", "State", "Authentication", "Granted by"], [30, 12, 18, 20, 20], programs)
    roles = [
        [one.role, one.is_privileged, one.needs_two, one.scopes, one.models, str(one.people), str(one.programs)]
        for one in installation.roles
    ]
    if roles:
        heads = ["Role", "Privileged", "Needs two people", "Scopes", "Models", "People", "Programs"]
        paper.table(heads, [10, 10, 17, 33, 12, 8, 10], roles)
    keys = [
        [one.file, one.purpose, one.holder, one.algorithm, one.identifier[:24], one.mode] for one in installation.keys
    ]
    paper.table(["File", "What for", "Held by", "Algorithm", "Identifier", "Mode"], [23, 24, 12, 13, 22, 6], keys)
    paper.heading("What runs")
    paper.paragraph(f"Casemate {installation.version}, software {installation.software}.")
    paper.paragraph(f"Configuration file {installation.configuration_digest}.")


def _set_verification(paper: Paper) -> None:
    paper.heading("Verify this pack")
    paper.paragraph(
        "This report alone shows nothing. The folder that it came in does: casemate compliance verify DIR --key LOG_VKEY "
        "--signer PACK_VKEY needs that folder and two public keys, no installation and no network. README.txt there says how "
        "to do it by hand."
    )


def _join(controls: tuple[str, ...]) -> str:
    rest = f" and {len(controls) - 6} more" if len(controls) > 6 else ""
    return ", ".join(controls[:6]) + rest
