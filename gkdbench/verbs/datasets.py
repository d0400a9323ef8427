"""``data list``, ``data check`` and ``data fetch``."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from gkdbench.verbs.printing import say, show

if TYPE_CHECKING:
    from gkdbench.data.catalogue import DatasetInfo


def nothing_there(data: str | None) -> int:
    """Exit code 3, with the folder in which no data set of a suite was found."""
    from gkdbench.data.rawfiles import data_folder

    where = data_folder(data)
    got = "GKDBENCH_DATA is not set" if where is None else f"none of them is in {where}"
    say(f"nothing to run: the suite's data sets are absent: {got}; try `gkdbench data list`", file=sys.stderr)
    return 3


def warn_of_no_folder() -> None:
    """Say on standard error that ``$GKDBENCH_DATA`` names no folder: every set with files would just be absent."""
    from gkdbench.data.rawfiles import data_folder

    where = data_folder()
    if where is not None and not where.is_dir():
        say(
            f"gkdbench: GKDBENCH_DATA: expected a folder of raw files, got {str(where)!r}, no folder; only built-in "
            "data sets are there",
            file=sys.stderr,
        )


def data_list(args: argparse.Namespace) -> int:
    """``gkdbench data list [NAME...]``: whether a set's files are available, and how many have no registered sha256."""
    from gkdbench.data.check import list_datasets
    from gkdbench.data.datasets import dataset_info

    wanted = {dataset_info(name).name for name in args.names}
    rows = [
        {
            "dataset": row.info.name,
            "kind": row.info.kind,
            "available": "built in" if not row.needed else f"{row.found}/{row.needed} files",
            "unverified": sum(not file.sha256 for file in row.info.files),
            "licence": row.info.licence,
        }
        for row in list_datasets(args.data)
        if not wanted or row.info.name in wanted
    ]
    show(rows, as_json=args.json)
    return 0


def data_check(args: argparse.Namespace) -> int:
    """``gkdbench data check [NAME...]``: sha256 of every file; 1 when one is corrupt, 3 when one is missing."""
    from gkdbench.data.check import check_dataset, list_datasets
    from gkdbench.data.datasets import dataset_info
    from gkdbench.meter import WorkMeter

    names = args.names or [row.info.name for row in list_datasets(args.data) if row.available and row.needed]
    meter = WorkMeter(len(names), "data sets checked")
    rows = []
    for name in names:
        rows += [
            {"dataset": name, "file": status.path, "status": status.status, "detail": status.detail}
            for status in check_dataset(name, data=args.data, decode=args.decode)
        ]
        meter.step(name)
    meter.end()
    show(rows, as_json=args.json, columns=("dataset", "file", "status", "detail"))
    for name in args.names:
        tell_views(dataset_info(name))
    found = {row["status"] for row in rows}
    return 1 if "corrupt" in found else 3 if "missing" in found else 0


def data_fetch(args: argparse.Namespace) -> int:
    """``gkdbench data fetch NAME``: download and verify; ``--print`` only prints what, from where, and how."""
    from gkdbench.data.check import fetch, fetch_instructions, unverified
    from gkdbench.data.datasets import dataset_info
    from gkdbench.data.rawfiles import data_folder
    from gkdbench.meter import WorkMeter

    if args.print:
        text = fetch_instructions(args.name)  # refuses what has no files
        if args.json:
            show(_file_facts(dataset_info(args.name)), as_json=True)
        else:
            say(text)
        return 0
    meter = WorkMeter(0, "files fetched")
    written = fetch(args.name, data=args.data, tell=meter.step_of)
    meter.end()
    info, paths = dataset_info(args.name), unverified(args.name)
    if args.json:
        show({"dataset": info.name, "written": [str(path) for path in written], "unverified": paths}, as_json=True)
    for path in written if not args.json else ():
        say(path)
    if not written:
        say(f"nothing to fetch: all files of {info.name} are in {data_folder(args.data)}", file=sys.stderr)
    tell_views(info)
    if paths:
        say(
            f"not verified: no sha256 is registered of {', '.join(paths)}; what was downloaded has readable content of "
            "the documented size, and may still be another file: compare it with a copy that you trust",
            file=sys.stderr,
        )
    return 0


def tell_views(info: DatasetInfo) -> None:
    """Say on standard error which splits of the set read another one's files."""
    for other in sorted(set(info.views.values())):
        splits = ", ".join(split for split, files in info.views.items() if files == other)
        say(f"{info.name} on {splits}: read from the files of {other} (`gkdbench data fetch {other}`)", file=sys.stderr)


def _file_facts(info: DatasetInfo) -> dict[str, Any]:
    return {
        "dataset": info.name,
        "source": info.source,
        "licence": info.licence,
        "files": [
            {
                "path": file.path,
                "sha256": list(file.sha256),
                "from": file.url or info.archive,
                "optional": file.optional,
            }
            for file in info.files
        ],
    }
