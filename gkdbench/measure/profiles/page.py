"""One readable page of profiles, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gkdbench.measure.profiles.profile import Profile, ProfileRow

SHOWN = 20
"""Operators that a table lists; the others are one line."""

_LEGEND = (
    "Share: of the time under the profiler, which adds a little to every operator, so that many small ones look larger "
    "than they are. Bytes: each operand read once, each result written once. Multiply-adds: of products; element-wise "
    "operators have none. Roofline: how much of the speed was reached that this machine's measured peaks allow for "
    "these bytes and multiply-adds; above 100% the operands came from the caches."
)


def page(title: str, facts: Mapping[str, str], profiles: Sequence[tuple[Profile, str]]) -> str:
    """Markdown: a title, facts of the run, a table per profile.

    Args:
        profiles: each with the name of its trace file.
    """
    parts = [f"# {title}", "\n".join(f"- {name}: {value}" for name, value in facts.items()), _LEGEND]
    for profile, trace in profiles:
        parts += [f"## {profile.what[:1].upper()}{profile.what[1:]}", _sentence(profile)]
        parts += [_table(profile), f"Trace: [{trace}]({trace}), for https://ui.perfetto.dev."]
    return "\n\n".join(parts) + "\n"


def _sentence(profile: Profile) -> str:
    """What bounds it, in words."""
    first = next((row for row in profile.rows if row.bound), None)
    text = (
        f"{profile.units} {profile.unit}{'s' if profile.units != 1 else ''} profiled, {profile.seconds * 1e3:.3g} ms "
        f"each. All that is counted would take {profile.percent_of_roof:.0f}% of the time at the machine's peaks."
    )
    if first is None:
        return text
    return (
        f"{text} The counted operator with the largest share is `{first.name}`: {first.share:.0%} of the time, bound "
        f"by {first.bound}, at {first.percent_of_roof:.0f}% of the roofline."
    )


def _table(profile: Profile) -> str:
    head = ("operator", "share", "calls", "bytes", "multiply-adds", "roofline", "bound by")
    lines = [head, ("---",) + ("---:",) * 5 + ("---",), *(_line(row) for row in profile.rows[:SHOWN])]
    if rest := profile.rows[SHOWN:]:
        share, calls = sum(row.share for row in rest), sum(row.calls for row in rest)
        lines.append((f"{len(rest)} others", f"{share:.1%}", _number(calls), "", "", "", ""))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _line(row: ProfileRow) -> tuple[str, ...]:
    reached = "–" if row.percent_of_roof is None else f"{row.percent_of_roof:.0f}%"
    return (
        f"`{row.name}`" if "::" in row.name else row.name,
        f"{row.share:.1%}",
        _number(row.calls) if row.calls else "–",
        "–" if row.bytes is None else _amount(row.bytes),
        "–" if row.macs is None else _amount(row.macs),
        reached,
        row.bound or "–",
    )


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def _amount(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.0f}"
