"""``python suites/studies/selection_tables.py [PAGE]``: tables of the study of the rule of selection, printed or put
into PAGE between its marks.

Reads ``results`` (protocol 1: the first of equal validation scores) and ``results/studies/selection``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean, stdev

from gkdbench.protocol.flatness import FLAT, FLAT_TEACHER
from gkdbench.records.schema import Record, Row
from gkdbench.records.store import Store
from gkdbench.report.markdown import splice, table
from gkdbench.report.statistics import sign_flip

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "results" / "studies" / "selection"
SPLITS = ("cpf-lcc-20-30", "cpf-lcc-20-30-ind20")
ROWS = {"teacher": "SAGE", "glnn": "GLNN", "krd": "KRD", "nosmog": "NOSMOG", "rbm": "RbM", "moe": "MoE"}
PAIRS = (("rbm", "glnn"), ("rbm", "krd"), ("rbm", "nosmog"), ("rbm", "moe"), ("moe", "glnn"), ("nosmog", "glnn"))
COLUMNS = ("tran", "ind")


@cache
def of_study() -> list[Record]:
    return [record for _, record in Store(STUDY).records()]


@cache
def of_protocol_1() -> list[Record]:
    """Published rows of the same configurations."""
    wanted = {(r.method, r.split, str(sorted(r.config.items()))) for r in of_study()}
    found = [record for _, record in Store(ROOT / "results").records() if record.dataset == "pubmed"]
    return [
        record
        for record in found
        if record.protocol_version == 1 and (record.method, record.split, str(sorted(record.config.items()))) in wanted
    ]


def runs(record: Record) -> dict[tuple[int, int], Row]:
    """Rows of the ten runs; further models of a run are left out."""
    return {(row.index, row.seed): row for row in record.rows if row.status == "ok" and row.seed < 1000}


def teachers() -> str:
    """Rules of selection by what validation says of the teachers alone."""
    lines = []
    for split in SPLITS:
        of_split = [r for r in of_study() if r.method == "teacher" and r.split == split]
        for record in sorted(of_split, key=lambda r: (r.selection not in ("first", "later"), r.selection)):
            models = [row.models[0] for row in runs(record).values()]
            flat = sum(FLAT in row.flags for row in runs(record).values())
            loss = fmean(model.val_loss for model in models if model.val_loss is not None)
            epochs = fmean(row.epochs for row in runs(record).values())
            score = 100 * fmean(model.val for model in models)
            lines.append(
                [split, record.selection, f"{flat} of {len(models)}", f"{score:.2f}", f"{loss:.3f}", f"{epochs:.0f}"]
            )
    return table(["Split", "Rule", "Flat", "Validation score", "Validation loss", "Epochs trained"], lines)


def rules() -> Iterator[tuple[str, list[Record]]]:
    """(title, records) of protocol 1 and of every rule under protocol 2 that has students."""
    yield "first, protocol 1", of_protocol_1()
    for rule in ("first", "later", "loss"):
        found = [record for record in of_study() if record.selection == rule]
        if any(record.method != "teacher" for record in found):
            yield f"{rule}, protocol 2", found


def students() -> str:
    """Test scores of all methods under the rules."""
    lines = []
    for split in SPLITS:
        for title, records in rules():
            of_split = {record.method: record for record in records if record.split == split}
            for column in COLUMNS:
                cells = [_score(of_split.get(method), column) for method in ROWS]
                if any(cell != "-" for cell in cells[1:]):
                    flat = (
                        [FLAT_TEACHER in row.flags for row in runs(of_split["glnn"]).values()]
                        if "glnn" in of_split
                        else []
                    )
                    known = "not recorded" if "protocol 1" in title else f"{sum(flat)} of {len(flat)}"
                    lines.append([split, column, title, *cells, known])
    return table(["Split", "Setting", "Rule", *ROWS.values(), "Flat teachers"], lines)


def _score(record: Record | None, column: str) -> str:
    values = (
        [100 * row.models[0].scores[column].value for row in runs(record).values() if column in row.models[0].scores]
        if record
        else []
    )
    if len(values) < 2:
        return "-"
    short = "" if len(values) == 10 else f" ({len(values)} of 10 runs)"
    return f"{fmean(values):.2f} ± {stdev(values):.2f}{short}"


def differences() -> str:
    """Paired differences in points, with 95% intervals and uncorrected p values."""
    lines = []
    for split in SPLITS:
        for column in COLUMNS:
            for one, two in PAIRS:
                cells = []
                for _, records in rules():
                    of_split = {record.method: record for record in records if record.split == split}
                    cells.append(_difference(of_split.get(one), of_split.get(two), column))
                if any(cell != "-" for cell in cells):
                    lines.append([split, column, f"{ROWS[one]} - {ROWS[two]}", *cells])
    return table(["Split", "Setting", "Pair", *(title for title, _ in rules())], lines)


def _difference(first: Record | None, second: Record | None, column: str) -> str:
    if first is None or second is None:
        return "-"
    one, two = runs(first), runs(second)
    values = [
        100 * (one[at].models[0].scores[column].value - two[at].models[0].scores[column].value)
        for at in sorted(one.keys() & two.keys())
        if column in one[at].models[0].scores
    ]
    if len(values) < 2:
        return "-"
    test = sign_flip(values)
    low, high = test.interval
    return f"{test.difference:+.2f} [{low:+.2f}, {high:+.2f}] p={test.p_value:.2g}, {len(values)} runs"


TABLES = {"teachers": teachers, "students": students, "differences": differences}


def main(arguments: Sequence[str]) -> int:
    if not arguments:
        print("\n\n".join(make() for make in TABLES.values()))
        return 0
    page = Path(arguments[0])
    text = page.read_text(encoding="utf-8")
    for name, make in TABLES.items():
        text = splice(text, name, make())
    page.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
