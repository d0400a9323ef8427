"""``report`` and ``compare``: records to tables, pages and paired differences."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gkdbench.errors import UserError
from gkdbench.text_files import read_text, write_text
from gkdbench.verbs.printing import fact_lines, say, show, terminal_width

if TYPE_CHECKING:
    from gkdbench.records.measurement import Measurement
    from gkdbench.records.schema import Record
    from gkdbench.report.claimvalues import Curves
    from gkdbench.report.model import Board, Expected, TableRow


def board_of(
    paths: Iterable[str | Path], *, expected: list[Expected] | None = None, costs: Sequence[str | Path] = ()
) -> Board:
    """The board of all records in files or folders `paths`, with the measurements of cost below these and `costs`."""
    from gkdbench.report.board import build

    found = list(paths)
    return build(records_in(found), expected=expected, measurements=measurements_in([*found, *costs]))


def measurements_in(paths: Iterable[str | Path]) -> list[Measurement]:
    """Measurements of cost below the folders among `paths`, each file once; those of studies stay out.

    A damaged one is left out, with a line on standard error: every other row has its cost all the same.
    """
    from gkdbench.records.measurement import load_measurement, measurement_paths
    from gkdbench.records.store import STUDIES

    files: set[Path] = set()
    for folder in (Path(path) for path in paths if Path(path).is_dir()):
        below = (file for file in measurement_paths(folder) if STUDIES not in file.relative_to(folder).parts)
        files |= {file.resolve() for file in below}
    found = []
    for file in sorted(files):
        try:
            found.append(load_measurement(file))
        except UserError as error:
            say(f"left out: {error}", file=sys.stderr)
        except FileNotFoundError:  # gone since it was listed
            continue
    return found


def records_in(paths: Iterable[str | Path]) -> list[Record]:
    """Records of files and folders; none at all is an error."""
    from gkdbench.report.loading import load_records

    records = [record for path in paths for record in load_records(path)]
    if not records:
        raise UserError(
            f"expected records in {', '.join(str(p) for p in paths)}, got no records; `gkdbench run SUITE` makes some"
        )
    return records


def flat_facts(board: Board) -> list[dict[str, Any]]:
    """Of every row of `board` that records it: how many of its runs are flat, or were taught by a flat teacher."""
    return [
        {
            "dataset": table.dataset,
            "split": table.split,
            "setting": table.setting,
            "protocol": table.protocol,
            "row": entry.name,
            "variant": entry.variant,
            "runs": entry.done,
            "flat": entry.flat,
            "flat_teacher": entry.flat_teacher,
        }
        for table in board.tables
        for entry in table.entries
        if entry.flat is not None
    ]


def print_board(board: Board) -> None:
    """The board on the terminal."""
    from gkdbench.report.text import to_text

    width = shutil.get_terminal_size((140, 40)).columns
    print(to_text(board, width=width, color=sys.stdout.isatty()))  # colours are escapes; its texts are printable


def write_page(board: Board, path: Path, *, title: str) -> Path:
    """The board as one self-contained HTML page at `path`."""
    from gkdbench.report.html import to_html

    return write_text(path, to_html(board, title=title))


def report(args: argparse.Namespace) -> int:
    """``gkdbench report PATH...``: the board as text, as JSON, or as ``--html``, ``--markdown``, ``--csv`` files."""
    from gkdbench.report.board import build
    from gkdbench.report.claimpage import write_pages
    from gkdbench.report.csvtable import row_facts, to_csv
    from gkdbench.report.loading import load_curves
    from gkdbench.report.markdown import to_markdown
    from gkdbench.report.selecting import choose_records, parse_only, part_of

    if args.claims and not any(Path(args.claims).glob("*.toml")):
        raise UserError(f"--claims: expected a folder of TOML files, got {args.claims!r}, which has none")
    for path in [*args.readme, *filter(None, [args.ties, args.published])]:
        if not Path(path).is_file():
            raise UserError(f"report: expected a file, got {path!r}, no file; correct the path")
    only = parse_only(args.only)
    records = records_in(args.paths)
    expected = _expected(args.suite) if args.suite else None
    board = build(records, expected=expected, measurements=measurements_in(args.paths))
    if only:
        board = part_of(board, choose_records(records, only))
    if args.html:
        say(write_page(board, Path(args.html), title=args.title))
    for path, make in ((args.markdown, to_markdown), (args.csv, to_csv)):
        if path:
            say(write_text(Path(path), make(board)))
    for path in args.readme:
        fill_tables(Path(path), board, args.paths)
    if args.claims:
        for page in write_pages(
            Path(args.claims), records, partial(load_curves, args.paths), partial(_study, args.paths)
        ):
            say(page.resolve())
    if args.published:
        count_published(Path(args.published), board, args.paths)
    if args.ties:
        fill_ties(Path(args.ties), records, partial(load_curves, args.paths))
    if args.pareto:
        write_pareto(Path(args.pareto), board)
    wanted = (args.html, args.markdown, args.csv, args.readme, args.claims, args.published, args.ties, args.pareto)
    if args.json:
        show(row_facts(board), as_json=True)
    elif args.records:
        for facts in record_facts(board, args.paths):
            say("\n".join(fact_lines(facts, terminal_width())))
    elif not any(wanted):
        print_board(board)
    return 0


def record_facts(board: Board, paths: Sequence[str | Path]) -> list[dict[str, Any]]:
    """Of every record behind `board`: its row, its file below `paths`, the command that trains all its runs again."""
    from gkdbench.records.store import record_paths

    files = {file.stem.rpartition("-")[2]: file for path in paths for file in record_paths(Path(path))}
    rows = {
        entry.key: {
            "row": f"{entry.name}: {section.title}; {', '.join([table.dataset, *table.heading])}",
            "record": files.get(entry.key[:12], entry.key),
            "again": _again(entry),
        }
        for table in board.tables
        for section in table.sections
        for entry in section.entries
    }
    return list(rows.values())


def _again(entry: TableRow) -> str:
    """The command that trains the runs of `entry` again; "" for a row without runs."""
    if not entry.runs:
        return ""
    suite, _, _ = entry.runs[0].command.partition(" --only ")
    return f"{suite} --only key={entry.key[:12]} --rerun"


def write_pareto(folder: Path, board: Board) -> None:
    """Write ``pareto-<data set>-<split>-<setting>-<latency or training>.svg`` of every table with measured rows.

    Raises:
        UserError: no table has two measured rows.
    """
    from gkdbench.report.pareto import KINDS, pareto_plot

    written = 0
    for table in board.tables:
        for kind in KINDS if not table.notes else ():
            plot = pareto_plot(table, kind)
            if plot is not None:
                path = folder / f"pareto-{table.dataset}-{table.split}-{table.setting}-{kind}.svg"
                say(write_text(path, f"{plot}\n"))
                written += 1
    if not written:
        raise UserError("--pareto: expected tables with two measured rows or more, got none; try `gkdbench run cost@1`")


def _study(paths: Sequence[str], name: str) -> tuple[list[Record], Curves]:
    """The records of study `name` below `paths`, and what reads their curves."""
    from gkdbench.report.loading import load_curves, load_records, study_folders

    folders = study_folders(paths, name)
    return [record for folder in folders for record in load_records(folder)], partial(load_curves, folders)


def count_published(path: Path, board: Board, sources: Sequence[str] = ()) -> None:
    """Print how many published numbers are reproduced, and write the page that `path` (TOML) describes next to it.

    Further training seeds of published rows are read from their study below `sources`, where it is there.
    """
    from gkdbench.report.loading import load_records, study_folders
    from gkdbench.report.reproduction import counts_text, reproduction_page
    from gkdbench.report.trainingspread import STUDY

    say(counts_text(path, board))
    seeds = [record for folder in study_folders(sources, STUDY) for record in load_records(folder)]
    say(write_text(path.with_suffix(".md"), reproduction_page(path, board, seeds)))


def _expected(suite: str) -> list[Expected]:
    """The runs of `suite`, so that the board lists what is missing; data sets without files are left out."""
    from collections import defaultdict

    from gkdbench.execute.api import plan_suite
    from gkdbench.report.model import Expected

    plan = plan_suite(suite, device="cpu")
    groups, runs = {}, defaultdict(set)
    for cell in [*plan.todo, *plan.cached]:
        groups[cell.group.key] = cell.group
        runs[cell.group.key].add((cell.index, cell.seed))
    return [
        Expected(
            key=key,
            label=group.method.label,
            dataset=group.identity.dataset,
            split=group.identity.split,
            setting=group.identity.setting,
            runs=frozenset(runs[key]),
            teacher=next((teacher.method.label for teacher in group.teachers.values()), None),
        )
        for key, group in groups.items()
    ]


def fill_tables(path: Path, board: Board, sources: Sequence[str | Path] = ()) -> None:
    """Replace every ``<!-- table NAME key=value ... -->`` ... ``<!-- end NAME -->`` block of a Markdown file.

    Keys are those of `gkdbench.report.markdown.Selection`, several values with commas; with ``columns=``, those of
    `gkdbench.report.wide.WideSelection`; with ``study=``, those of `gkdbench.report.costtable.CostSelection`, whose
    measurements lie in studies below `sources`. No cell is written by hand.
    """
    from gkdbench.report.markdown import marked_tables, splice

    text = read_text(path)
    for name, keys in marked_tables(text).items():
        text = splice(text, name, _selected(board, keys, sources))
    say(write_text(path, text))


def fill_ties(path: Path, records: Sequence[Record], curves: Curves) -> None:
    """Replace the ``<!-- table ties -->`` ... ``<!-- end ties -->`` block of a Markdown file."""
    from gkdbench.report.markdown import splice
    from gkdbench.report.ties import NAME, ties_section

    say(write_text(path, splice(read_text(path), NAME, ties_section(records, curves))))


def _selected(board: Board, keys: Mapping[str, str], sources: Sequence[str | Path]) -> str:
    from gkdbench.report.costtable import CostSelection, cost_table
    from gkdbench.report.loading import study_folders
    from gkdbench.report.markdown import Selection, markdown_table
    from gkdbench.report.wide import WideSelection, wide_table

    chosen: dict[str, Any] = {key: tuple(value.split(",")) for key, value in keys.items()}
    if "compared" in keys:
        chosen["compared"] = keys["compared"] == "yes"
    try:
        if "study" in chosen:
            folders = [folder for name in chosen["study"] for folder in study_folders(sources, name)]
            return cost_table(measurements_in(folders), CostSelection(**chosen))
        if "columns" in chosen:
            return wide_table(board, WideSelection(**chosen))
        return markdown_table(board, Selection(**chosen))
    except TypeError as error:
        raise UserError(f"unknown key of a table, got {', '.join(keys)}: {error}") from None


def compare(args: argparse.Namespace) -> int:
    """``gkdbench compare A B``: paired by (split index, seed), with interval, p and family-wise p.

    With ``--measure``: how much of B's time A takes, measured now.
    """
    import dataclasses

    from gkdbench.report.comparison import compare as pair
    from gkdbench.report.selecting import choose_records, parse_only

    first, second = (
        choose_records(records_in([path]), parse_only(only, option), option)
        for path, only, option in (
            (args.first, args.first_only, "--first-only"),
            (args.second, args.second_only, "--second-only"),
        )
    )
    found: Any = _compared_cost(args, first, second) if args.measure else pair(first, second)
    if args.json:
        show(dataclasses.asdict(found), as_json=True)
    else:
        say(found.to_text() if args.measure else found.to_text(width=terminal_width()))
    return 0


def _compared_cost(args: argparse.Namespace, first: Sequence[Record], second: Sequence[Record]) -> Any:
    from gkdbench.execute.cost.compare import compare_cost
    from gkdbench.execute.progress import Lines

    for path, records in ((args.first, first), (args.second, second)):
        if len(records) != 1:
            raise UserError(
                f"compare --measure: expected one record in {path}, got {len(records)}; name its file, or choose it "
                "by --first-only and --second-only"
            )
    return compare_cost(
        first[0],
        second[0],
        args.measure,
        data=None if args.data is None else Path(args.data),
        device="auto",
        progress=Lines(sys.stderr),
    )
