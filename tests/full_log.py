"""Runs pytest with the arguments given, and writes what came of it to full-log.md beside this file."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from importlib.metadata import version
from pathlib import Path

SLOWEST = 10


def main(arguments: list[str]) -> int:
    """Run, summarise, give pytest's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        code = subprocess.call([sys.executable, "-m", "pytest", *arguments, f"--junitxml={report}"])
        if report.exists():
            Path(__file__).with_name("full-log.md").write_text(summary(report), encoding="utf-8")
    return code


def summary(report: Path) -> str:
    """Markdown: where and when, counts, failures and skips with their reasons, the slowest tests."""
    cases = list(ET.parse(report).getroot().iter("testcase"))
    bad = [(case, mark) for case in cases for kind in ("failure", "error") for mark in case.iter(kind)]
    skipped = [(case, mark) for case in cases for mark in case.iter("skipped")]
    passed = len(cases) - len({id(case) for case, _ in bad + skipped})
    slowest = sorted(cases, key=seconds, reverse=True)[:SLOWEST]
    today = datetime.datetime.now(datetime.UTC).date()
    data = "at hand" if os.environ.get("GKDBENCH_DATA") else "absent"
    lines = [
        "# The full tests, last run",
        "",
        f"{today}, Python {platform.python_version()}, torch {version('torch')}, {os.cpu_count()} cores, "
        f"raw data {data}.",
        "",
        f"{passed} passed, {len(bad)} failed, {len(skipped)} skipped; {sum(map(seconds, cases)):.0f} s of tests.",
        *listed("Failed", bad),
        *listed("Skipped", skipped),
        "",
        "## Slowest",
        "",
        *(f"- {seconds(case):.1f} s {name(case)}" for case in slowest),
    ]
    return "\n".join(lines) + "\n"


def listed(title: str, marks: list[tuple[ET.Element, ET.Element]]) -> list[str]:
    """A section of tests with the first line of why; nothing when there are none."""
    found = [f"- {name(case)}: {(mark.get('message') or '-').splitlines()[0][:160]}" for case, mark in marks]
    return ["", f"## {title}", "", *found] if found else []


def name(case: ET.Element) -> str:
    return f"{case.get('classname')}.{case.get('name')}"


def seconds(case: ET.Element) -> float:
    return float(case.get("time", 0))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
