"""README and CONTRIBUTING do what they say: their code runs, their output is real, their tables are made."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.document_blocks import ROOT, blocks, copy_of_checkout, difference, environment, run_all
from support.warm_interpreter import warm_commands

from gkdbench.report.markdown import marked_tables


@pytest.mark.timeout(600)  # two walks, each with runs of pytest in processes of their own
@pytest.mark.parametrize(("name", "least"), [("README.md", 4), ("CONTRIBUTING.md", 12), ("docs/gkdkernels.md", 5)])
def test_code_blocks_run_and_print_what_is_shown(name: str, least: int, tmp_path: Path) -> None:
    document = ROOT / name
    assert len(blocks(document)) >= least
    checkout = copy_of_checkout(tmp_path / "gkdbench")
    with warm_commands(tmp_path / "bin") as commands:
        for block, printed in run_all(document, checkout, environment(checkout, tmp_path / "cache", commands)):
            if block.shown is not None:
                assert difference(block.shown, printed) == "", f"{name}:{block.line}\n{printed}"


def test_the_comparison_of_outputs_can_fail() -> None:
    assert difference("a 0.50 b", "a 0.51 b") == difference("a\n...\nz", "a\nb c\nz") == ""
    assert "wanted 'b'" in difference("a b", "a c")
    assert "wanted '0.50'" in difference("0.50", "0.80")
    assert "more was printed: 'c'" in difference("a", "a c")
    assert "wanted 'b'" in difference("a b", "a")


@pytest.mark.parametrize(
    ("document", "tables"), [("README.md", {"anchors", "students"}), ("docs/results.md", {"glnn", "main", "mlps"})]
)
def test_the_tables_are_marked(document: str, tables: set[str]) -> None:
    found = marked_tables((ROOT / document).read_text(encoding="utf-8"))
    assert tables <= set(found)


def test_no_cell_of_a_table_is_written_by_hand(tmp_path: Path) -> None:
    if not any((ROOT / "results").rglob("*.json")):
        pytest.skip("no published records yet: the tables are empty")
    names = ("README.md", "docs/results.md")
    copies = [tmp_path / Path(name).name for name in names]
    for name, copy in zip(names, copies, strict=True):
        shutil.copy(ROOT / name, copy)
    files = [str(copy) for copy in copies]
    command = [sys.executable, "-m", "gkdbench.cli", "report", str(ROOT / "results"), "--readme", *files]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, copy in zip(names, copies, strict=True):
        assert copy.read_text(encoding="utf-8") == (ROOT / name).read_text(encoding="utf-8"), (
            f"run `gkdbench report results --readme {name}`"
        )


def test_links_to_files_lead_somewhere() -> None:
    documents = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "results/README.md")]
    for document in [*documents, *(ROOT / "docs").rglob("*.md")]:
        text = document.read_text(encoding="utf-8")
        targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)]+)\)", text) if "://" not in target]
        assert [target for target in targets if target and not (document.parent / target).exists()] == [], document


def test_exit_codes_are_documented() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for code in ("`0`", "`1`", "`2`", "`3`", "`130`"):
        assert f"| {code} |" in text
