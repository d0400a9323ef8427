"""The sentences and tables of one checked claim, and what a page of claims opens with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gkdbench.report.cells import interval_text, percent, points
from gkdbench.report.claimcheck import Checked, RivalComparison, RivalEstimate
from gkdbench.report.claimfile import ClaimKind
from gkdbench.report.convergence import Spread
from gkdbench.report.markdown import plain, table
from gkdbench.report.protocols import protocol_text

MEASURES: dict[ClaimKind, tuple[str, Callable[[float], str]]] = {
    "better": ("score", percent),
    "steadier": ("deviation", percent),
    "consistent": ("worst regret", percent),
    "sooner": ("epochs", lambda value: f"{value:.1f}"),
}
"""Test -> what its numbers are, and how one is printed. Differences are points, or percent of the rival's epochs."""

RULES = """\
- A claim has one estimate for each rival: the mean difference over its places, by run (split index and seed), over the
  runs that all places share. p is that of the two-sided sign-flip test, the interval (95 %) holds what this test does
  not exclude, and the family p is over all estimates of the page (step-down max-T, Westfall and Young).
- Better, worse: the family p is below 0.05. Equal: surely within 0.5 points (two one-sided tests at 5 %). Else not
  resolved, with the runs that would resolve a difference of this size with probability 0.8.
- Supported: better than every rival. Contradicted: worse than at least one. Undecided: anything else, or a row is
  missing or has fewer than ten runs.
- Lines by place are a second family, of the rivals alone that the page told apart; the others have numbers and no word.
- Where splits overlap, the corrected resampled t of Nadeau and Bengio stands beside; words follow the sign flip.
- Power: the probability that a claim's design says "supported" if the candidate were really so much better than every
  rival, for normal differences with the spread of these."""


def opening(checked: Sequence[Checked]) -> str:
    """What a reader should believe, in three sentences."""
    by = {
        verdict: [(number, found) for number, found in enumerate(checked, start=1) if found.verdict == verdict]
        for verdict in ("supported", "contradicted", "undecided")
    }
    missing = sum(bool(found.absent) for _, found in by["undecided"])
    lacking = f", {missing} of them because rows are missing" if missing else ""
    counts = (
        f"Claims: {len(checked)}, of which these records support {len(by['supported'])}, contradict "
        f"{len(by['contradicted'])} and leave {len(by['undecided'])} undecided{lacking}."
    )
    held = [f"claim {number} ({plain(found.claim.says)})" for number, found in by["supported"]]
    refuted = [f"claim {number} ({_worst(found)})" for number, found in by["contradicted"]]
    believed = f"Believe {_listed(held)}" if held else "Believe none of them on these records"
    against = f", the contrary of {_listed(refuted)}" if refuted else ""
    alike = [str(number) for number, found in by["undecided"] if found.rivals and all(map(_equal, found.rivals))]
    claims = "claim" if len(alike) == 1 else "claims"
    against += f", and that what {claims} {_listed(alike)} compare is equal within 0.5 points" if alike else ""
    powers = [found.power[0.015] for found in checked if found.power]
    if powers:
        ends = f"{min(powers):.2f}" if len(powers) == 1 else f"{min(powers):.2f} to {max(powers):.2f}"
        power = f"A true gain of 1.5 points over every rival would have been found with probability {ends}, "
        power += "so that undecided says little where this is small."
    else:
        power = "No design here has runs enough to say what it would have found."
    return f"{counts} {believed}{against}. {power}"


def _equal(of: RivalEstimate) -> bool:
    return of.estimate.outcome == "equal" and of.complete


def _listed(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def _worst(found: Checked) -> str:
    worse = [of for of in found.rivals if of.estimate.outcome == "worse" and of.estimate.difference is not None]
    return ", ".join(
        f"{points(of.estimate.difference or 0.0)} {UNITS[found.claim.test]} against {plain(of.rival)}" for of in worse
    )


UNITS: dict[ClaimKind, str] = {
    "better": "points",
    "steadier": "points of deviation",
    "consistent": "points of worst regret",
    "sooner": "percent of the epochs",
}


def overview(checked: Sequence[Checked]) -> str:
    """One line a claim."""
    titles = ["", "Claim", "Verdict", "Protocol", "Against each rival, pooled", "Shared runs", "Power at 1.5 points"]
    rows = []
    for number, found in enumerate(checked, start=1):
        against = "; ".join(f"{plain(of.rival)} {short(of)}" for of in found.rivals)
        runs = sorted({len(of.pooled.gains) for of in found.rivals if of.pooled.gains})
        shared = "–" if not runs else str(runs[0]) if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
        power = f"{found.power[0.015]:.2f}" if found.power else "–"
        protocol = "–" if found.protocol is None else str(found.protocol)
        rows.append([str(number), plain(found.claim.says), f"**{found.verdict}**", protocol, against, shared, power])
    return table(titles, rows)


def short(of: RivalEstimate) -> str:
    """``+1.04 better``."""
    if of.estimate.difference is None:
        return of.pooled.said if not of.pooled.gains else of.estimate.said
    return f"{points(of.estimate.difference)} {of.estimate.outcome or of.estimate.said}"


def heading(found: Checked) -> str:
    """Source, test, verdict, and what the design could find."""
    of = found.claim
    made = f" ({protocol_text(found.protocol)})" if found.protocol else ""
    text = f"Source: {of.source}. Test: {of.reads} Verdict: **{found.verdict}**{made}."
    if found.power:
        gains = " / ".join(f"{100 * gain:g}" for gain in found.power)
        chances = " / ".join(f"{chance:.2f}" for chance in found.power.values())
        text += f" Power of this design at {gains} points: {chances}."
    if found.regrets:
        mean = ", ".join(f"{plain(name)} {percent(value)}" for name, value in found.regrets.items())
        text += f" Worst regret over the places, mean over runs: {mean}."
    return text


def estimates(found: Checked) -> str:
    """One line a rival, pooled over the places."""
    titles = ["Rival", "Pooled over", "Difference", "Interval", "p", "Family p", "Corrected t, p", "Result"]
    rows = [
        [plain(of.rival), of.pooled.said, *_numbers(of.estimate.test), _p(of.estimate.p_family), _t(of.t_test),
         plain(of.estimate.said if of.pooled.gains else of.pooled.said)]
        for of in found.rivals
    ]  # fmt: skip
    return table(titles, rows)


def lines(found: Checked) -> str:
    """One line a rival and place."""
    what, shown = MEASURES[found.claim.test]
    titles = ["Where", f"Candidate, {what}", "Rival", what, "Difference", "Interval", "p", "n", "Family p"]
    titles += ["Corrected t, p", "Result"]
    rows = [
        [
            plain(_where(line, found)),
            shown(line.mean),
            plain(line.rival),
            shown(line.mean_rival),
            *_numbers(line.estimate.test),
            str(line.estimate.runs),
            _p(line.estimate.p_family),
            _t(line.t_test),
            plain(line.estimate.said if line.tested or line.estimate.test is None else "–"),
        ]
        for line in found.lines
    ]
    return table(titles, rows)


def _where(line: RivalComparison, found: Checked) -> str:
    own = [line.candidate] if found.claim.part else []
    return " · ".join([*own, *line.place])


def _numbers(test: object) -> list[str]:
    from gkdbench.report.statistics import SignFlip

    if not isinstance(test, SignFlip):
        return ["–", "–", "–"]
    return [points(test.difference), plain(interval_text(test.interval)), f"{test.p_value:.2g}"]


def _p(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"


def _t(found: tuple[float, float] | None) -> str:
    return "–" if found is None else f"{found[0]:.2f}, {found[1]:.2g}"


def paces(found: Checked) -> str:
    """What the same arrivals cost in epochs, in gradient steps of one model and on the clock."""
    rows = []
    for line in found.lines:
        if line.pace is not None:
            ratios = [_times(each) for each in (line.pace.epochs, line.pace.steps, line.pace.seconds)]
            reached = f"{line.pace.reached} of {line.pace.models}"
            rows.append([plain(_where(line, found)), plain(line.rival), reached, *ratios])
    titles = ["Where", "Rival", "Models that reach its score", "Epochs", "Gradient steps of a model", "Wall clock"]
    return f"{PACES}\n\n{table(titles, rows)}"


PACES = """\
The same as ratios, candidate over rival, geometric means with intervals; below 1 is sooner. Seconds are those of
training and evaluation on the machine of the records, whatever else it did."""


def _times(ratio: Spread | None) -> str:
    if ratio is None:
        return "–"
    mean, low, high = ratio
    return f"{mean:.2f} " + plain(interval_text((low, high), lambda value: f"{value:.2f}"))
