"""Which rows may be called better: paired against every control of equal or lower cost, judged together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from gkdbench.report.model import ControlComparison, Section, Table, TableRow
from gkdbench.report.rownames import row_name
from gkdbench.report.statistics import Estimate, judge

NEEDS = ("features", "features+encodings", "graph")  # in the order of what inference costs
SLACK = 1.01  # a control matched in multiply-adds may be 1% larger (docs/protocol.md, control G2)
OWN_COST = 0.5
"""A control that costs at least this share of a row is of its own cost; a cheaper one alone makes no row bold."""
Fits = Callable[[TableRow, TableRow], bool]


def against_controls(entries: Sequence[TableRow], solo: Sequence[TableRow]) -> list[TableRow]:
    """`entries` with `versus` and `versus_training` filled.

    A control is a corrected row on the same runs that was trained alone, as one model, or is declared a control of
    this section (matched MLPs, best of K and ensembles, random and frozen routing, transfer weight 0). Each other
    corrected row that was taught, or has peers, is compared with every control that needs no more at inference and no
    more multiply-adds (parameters where those are not counted); a row of peers also with every one whose models took no
    more multiply-adds to train, whatever its inference costs. All lines of one kind in this section are one family.
    Shown is the control that leaves the smallest difference.
    """
    candidates = [*solo, *(entry for entry in entries if entry.control)]
    first, second = (_compared(entries, candidates, fits) for fits in (_affordable, _as_cheap_to_train))
    return [
        replace(entry, versus=versus, versus_training=training)
        for entry, versus, training in zip(entries, first, second, strict=True)
    ]


def with_bold(tables: Sequence[Table]) -> list[Table]:
    """`tables` with `bold` filled, and why a row that is better is not.

    Bold: better than every control that it is compared with, at least one of which costs what it costs, and the same
    controls in every table of its split, setting and protocol: a control that the row has elsewhere and that was not
    run here leaves it plain.
    """
    groups: dict[tuple[object, ...], list[Table]] = {}
    for table in tables:
        groups.setdefault((table.split, table.setting, table.protocol, table.tier, table.notes), []).append(table)
    wanted: dict[int, Mapping[tuple[object, ...], set[str]]] = {}
    for members in groups.values():
        sets: dict[tuple[object, ...], set[str]] = {}
        for table in members:
            for section in table.sections:
                for entry in section.entries:
                    if entry.versus:
                        sets.setdefault(_who(section, entry), set()).update(entry.versus.controls)
        for table in members:
            wanted[id(table)] = sets
    return [_marked(table, wanted[id(table)]) for table in tables]


def _marked(table: Table, wanted: Mapping[tuple[object, ...], set[str]]) -> Table:
    run = {_name(entry) for entry in table.entries if entry.complete}
    return replace(table, sections=tuple(_marked_section(section, wanted, run) for section in table.sections))


def _marked_section(section: Section, wanted: Mapping[tuple[object, ...], set[str]], run: set[str]) -> Section:
    entries = []
    for entry in section.entries:
        if (versus := entry.versus) is not None:
            lacking = tuple(sorted(wanted[_who(section, entry)] - run))
            bold = versus.beats_all and versus.own_cost and not lacking
            entry = replace(entry, versus=replace(versus, lacking=lacking), bold=bold)
        entries.append(entry)
    return replace(section, entries=tuple(entries))


def _who(section: Section, entry: TableRow) -> tuple[object, ...]:
    return section.kind, section.title, row_name(entry.label, entry.aggregate).identity


def _name(entry: TableRow) -> str:
    """A control's name on all data sets."""
    return row_name(entry.label, entry.aggregate).plain


def _compared(
    entries: Sequence[TableRow], candidates: Sequence[TableRow], fits: Fits
) -> list[ControlComparison | None]:
    """Of every entry its comparison with the candidates that `fits`, where there are any."""
    controls = [_controls(entry, candidates, fits) for entry in entries]
    lines = [
        {run: entry.scores[run] - control.scores[run] for run in sorted(entry.planned)}
        for entry, own in zip(entries, controls, strict=True)
        for control in own
    ]
    judged = iter(judge(lines))
    found: list[ControlComparison | None] = []
    for entry, own in zip(entries, controls, strict=True):
        estimates = [next(judged) for _ in own]
        found.append(_strongest(entry, own, estimates) if own else None)
    return found


def _strongest(entry: TableRow, controls: Sequence[TableRow], estimates: Sequence[Estimate]) -> ControlComparison:
    number = min(range(len(controls)), key=lambda k: (estimates[k].difference or 0.0, controls[k].name))
    return ControlComparison(
        control=controls[number].name,
        estimate=estimates[number],
        controls=frozenset(map(_name, controls)),
        beats_all=all(estimate.better for estimate in estimates),
        own_cost=any(_of_own_cost(control, entry) for control in controls),
    )


def _controls(entry: TableRow, candidates: Sequence[TableRow], fits: Fits) -> list[TableRow]:
    treated = (entry.teacher is not None or entry.aggregate != "single") and not entry.control
    if not treated or not entry.complete or entry.done < 2 or entry.variant != "corrected":
        return []
    return [
        control
        for control in candidates
        if (control.control or control.aggregate == "single")
        and control.aggregate != "mean of peers"
        and control.key != entry.key
        and control.complete
        and control.planned == entry.planned
        and fits(control, entry)
    ]


def _affordable(control: TableRow, entry: TableRow) -> bool:
    """Does `control` cost at most what `entry` costs at inference?"""
    if NEEDS.index(control.needs) > NEEDS.index(entry.needs):
        return False
    ours, theirs = _costs(control, entry)
    return ours is not None and theirs is not None and ours <= SLACK * theirs


def _of_own_cost(control: TableRow, entry: TableRow) -> bool:
    """Is an affordable `control` about as large as `entry`? A fixed routing is so for its own method alone."""
    ours, theirs = _costs(control, entry)
    if control.control == "fixed_routing" and control.method != entry.method:
        return False
    return ours is not None and theirs is not None and ours >= OWN_COST * theirs


def _costs(control: TableRow, entry: TableRow) -> tuple[int | None, int | None]:
    """Multiply-adds of both, or their parameters where those are not counted."""
    if control.macs is not None and entry.macs is not None:
        return control.macs, entry.macs
    return control.parameters, entry.parameters


def _as_cheap_to_train(control: TableRow, entry: TableRow) -> bool:
    """Did the models of `control` cost at most what the peers of `entry` cost to train?"""
    ours, theirs = control.training_macs, entry.training_macs
    return entry.aggregate != "single" and ours is not None and theirs is not None and ours <= SLACK * theirs
