"""The page of Alignahead: its figure is what the code draws, its pointers lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.document_blocks import ROOT

from gkdbench.cli import main
from gkdbench.report.layers import APART, HIGH, PITCH, WIDE, layer_figure

PAGE = ROOT / "docs/alignahead.md"
SPACE = "{http://www.w3.org/2000/svg}"


def test_the_committed_figure_is_what_the_code_draws(tmp_path: Path) -> None:
    assert main(["show", "alignahead", "--figure", str(tmp_path / "drawn.svg")]) == 0
    drawn = (tmp_path / "drawn.svg").read_text(encoding="utf-8")
    committed = (ROOT / "docs/alignahead.svg").read_text(encoding="utf-8")
    assert drawn == committed, "run `gkdbench show alignahead --figure docs/alignahead.svg`"
    titles = [t.text for t in ElementTree.fromstring(drawn).iter(f"{SPACE}text") if t.get("class") == "head"]
    assert titles == ["ahead", "behind", "one-to-one"]


def test_no_other_method_has_a_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "glnn", "--figure", str(tmp_path / "x.svg")]) == 2
    assert "glnn has no figure" in capsys.readouterr().err


@pytest.mark.parametrize("students", [2, 3, 4])
def test_arrows_lead_from_the_followed_layer_to_the_learner(students: int) -> None:
    followed = {"ahead": [1, 2, 0], "one-to-one": [0, 1, 2]}
    root = ElementTree.fromstring(layer_figure(followed, students))
    learner = (students - 1) // 2
    for panel, (_, order) in zip(root.findall(f"{SPACE}g"), followed.items(), strict=True):
        rects = [{k: float(r.attrib[k]) for k in "xy"} for r in panel.iter(f"{SPACE}rect")]
        tops = sorted({r["y"] for r in rects}, reverse=True)[:3]  # of layers 1 to 3: the labels' box stands above
        found = set()
        for path in panel.iter(f"{SPACE}path"):
            numbers = [float(n) for n in re.findall(r"-?[\d.]+", path.attrib["d"])]
            (x0, y0), (x1, y1) = numbers[:2], numbers[-2:]
            other = int(x0 // (WIDE + APART))
            assert x1 in (learner * (WIDE + APART), learner * (WIDE + APART) + WIDE)
            found.add((other, tops.index(y0 - HIGH / 2), tops.index(y1 - HIGH / 2)))
        others = [s for s in range(students) if s != learner]
        assert found == {(o, of, layer) for o in others for layer, of in enumerate(order)}
    assert PITCH > HIGH


def test_pointers_of_the_page_lead_somewhere() -> None:
    text = PAGE.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#]+)\)", text)
    assert len(targets) > 8
    assert [target for target in targets if not (PAGE.parent / target).exists()] == []
    for name, file in re.findall(r"`([\w.]+)` in \[[^]]+\]\(([^)]+)\)", text):
        source = (PAGE.parent / file).read_text(encoding="utf-8")
        assert f"def {name.rsplit('.', 1)[-1]}(" in source, name


def test_both_logs_of_ppi_are_stated_as_not_comparable() -> None:
    text = (ROOT / "docs/claims/alignahead.md").read_text(encoding="utf-8")
    logs = [line for line in text.splitlines() if line.startswith("| Alignahead") and "released log" in line]
    assert {re.findall(r"97\.\d\d", line)[0] for line in logs} == {"97.81", "97.68", "97.66", "97.59"}
    assert all("| not comparable |" in line for line in logs)
