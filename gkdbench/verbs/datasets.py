"""``data list``, ``data check`` and ``data fetch``."""

from __future__ import annotations

import argparse
import sys

from gkdbench.verbs.printing import say, show


def data_list(args: argparse.Namespace) -> int:
    """``gkdbench data list``: every set, whether its files are available, and how many have no registered sha256."""
    from gkdbench.data.check import list_datasets

    rows = [
        {
            "dataset": row.info.name,
            "kind": row.info.kind,
            "available": "built in" if not row.needed else f"{row.found}/{row.needed} files",
            "unverified": sum(not file.sha256 for file in row.info.files),
            "licence": row.info.licence,
        }
        for row in list_datasets(args.data)
    ]
    show(rows, as_json=args.json)
    return 0


def data_check(args: argparse.Namespace) -> int:
    """``gkdbench data check [NAME...]``: sha256 of every file; 1 when one is corrupt, 3 when one is missing."""
    from gkdbench.data.check import check_dataset, list_datasets

    names = args.names or [row.info.name for row in list_datasets(args.data) if row.available and row.needed]
    rows = [
        {"dataset": name, "file": status.path, "status": status.status, "detail": status.detail}
        for name in names
        for status in check_dataset(name, data=args.data, decode=args.decode)
    ]
    show(rows, as_json=args.json, columns=("dataset", "file", "status", "detail"))
    found = {row["status"] for row in rows}
    return 1 if "corrupt" in found else 3 if "missing" in found else 0


def data_fetch(args: argparse.Namespace) -> int:
    """``gkdbench data fetch NAME``: download and verify; ``--print`` only prints what, from where, and how."""
    from gkdbench.data.check import fetch, fetch_instructions, unverified

    if args.print:
        say(fetch_instructions(args.name))
        return 0
    for path in fetch(args.name, data=args.data):
        say(path)
    if paths := unverified(args.name):
        say(
            f"not verified: no sha256 is registered of {', '.join(paths)}; what was downloaded has readable content of "
            "the documented size, and may still be another file: compare it with a copy that you trust",
            file=sys.stderr,
        )
    return 0
