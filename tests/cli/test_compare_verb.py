"""``compare`` on published records: text for people, the same numbers as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gkdbench.cli import main
from gkdbench.records.store import load_record

PUBLISHED = Path(__file__).parents[2] / "results" / "cora" / "cpf-lcc-20-30" / "tran"


def as_configured(path: Path) -> bool:
    record = load_record(path)
    return (record.variant, record.tier) == ("corrected", "published")


def test_text_and_json_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    glnn, mlp = (next(filter(as_configured, sorted(PUBLISHED.glob(f"{method}-*.json")))) for method in ("glnn", "mlp"))
    assert main(["compare", str(glnn), str(mlp)]) == 0
    text = capsys.readouterr().out
    assert main(["compare", "--json", str(glnn), str(mlp)]) == 0
    (line,) = json.loads(capsys.readouterr().out)["lines"]
    assert (line["pairs"], line["unpaired"]) == (10, 0)
    assert f"{100 * line['difference']:+.2f}" in text
    assert line["difference"] == pytest.approx(line["mean_first"] - line["mean_second"])
