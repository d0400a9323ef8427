"""README and CONTRIBUTING do what they say: their code runs, their output is real, their tables are made."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from blocks import ROOT, blocks, copy_of_checkout, difference, environment, run_all


@pytest.mark.parametrize(("name", "least"), [("README.md", 4), ("CONTRIBUTING.md", 8)])
def test_code_blocks_run_and_print_what_is_shown(name: str, least: int, tmp_path: Path) -> None:
    document = ROOT / name
    assert len(blocks(document)) >= least
    checkout = copy_of_checkout(tmp_path / "gkdbench")
    for block, printed in run_all(document, checkout, environment(checkout, tmp_path / "cache")):
        if block.shown is not None:
            assert difference(block.shown, printed) == "", f"{name}:{block.line}\n{printed}"


def test_the_comparison_of_outputs_can_fail() -> None:
    assert difference("a 0.50 b", "a 0.51 b") == difference("a\n...\nz", "a\nb c\nz") == ""
    assert "wanted 'b'" in difference("a b", "a c")
    assert "wanted '0.50'" in difference("0.50", "0.80")
    assert "more was printed: 'c'" in difference("a", "a c")
    assert "wanted 'b'" in difference("a b", "a")


def marked(text: str) -> dict[str, str]:
    """Name -> keys of every table block."""
    return dict(re.findall(r"<!-- table (\S+)((?: \S+=\S+)*) -->", text))


def test_the_tables_are_marked_and_selectable() -> None:
    from gkdbench.report import Selection

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tables = marked(text)
    assert {"anchors", "glnn", "main"} <= set(tables)
    for name, keys in tables.items():
        assert text.count(f"<!-- end {name} -->") == 1
        pairs = dict(pair.split("=") for pair in keys.split())
        compared = pairs.pop("compared", "no") == "yes"
        Selection(**{key: tuple(value.split(",")) for key, value in pairs.items()}, compared=compared)


def test_no_cell_of_a_table_is_written_by_hand(tmp_path: Path) -> None:
    if not any((ROOT / "results").rglob("*.json")):
        pytest.skip("no published records yet: the tables are empty")
    readme = tmp_path / "README.md"
    shutil.copy(ROOT / "README.md", readme)
    command = [sys.executable, "-m", "gkdbench.cli", "report", str(ROOT / "results"), "--readme", str(readme)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert readme.read_text(encoding="utf-8") == (ROOT / "README.md").read_text(encoding="utf-8"), (
        "run `gkdbench report results --readme README.md`"
    )


def test_links_to_files_lead_somewhere() -> None:
    for document in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        text = (ROOT / document).read_text(encoding="utf-8")
        targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)]+)\)", text) if "://" not in target]
        assert [target for target in targets if target and not (ROOT / target).exists()] == []


def test_exit_codes_are_documented() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for code in ("`0`", "`1`", "`2`", "`3`", "`130`"):
        assert f"| {code} |" in text
