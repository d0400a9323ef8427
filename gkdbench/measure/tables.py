"""Tables and plots of stored results: ratios and shares of roofs, never seconds."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gkdbench.errors import UserError
from gkdbench.measure.svg import Dot, RatioBar, Strand, bar_plot, curve_plot, roofline_plot

BLOCKS = ("bars", "steps", "methods", "latency", "growth", "cpu", "gpu")
NOTHING = "Not measured."

# stored results keep the names under which they were measured
_SHOWN = {
    "the released structure, re-written plainly": "PyTorch re-implementation of the official code",
    "released structure, re-written plainly": "PyTorch re-implementation of the official code",
    "as the house runs it": "gkdbench training path",
    "the fastest peer": "the fastest competitor",
}


@dataclass(frozen=True, slots=True)
class Stored:
    """One file of `gkdbench profile kernels --json`."""

    name: str
    content: dict[str, Any]

    @property
    def gpu(self) -> bool:
        return self.content["provenance"].get("gpu") is not None


def read_results(paths: Sequence[Path]) -> list[Stored]:
    """All JSON files, by name.

    Raises:
        UserError: a path that does not exist, a file of another kind, or one of a quick run.
    """
    files = []
    for path in paths:
        if not path.exists():
            raise UserError(
                f"{path}: expected a folder of results, got none; `gkdbench profile kernels --json {path}/cpu.json` "
                "makes results"
            )
        files += sorted(path.rglob("*.json")) if path.is_dir() else [path]
    found = []
    for file in files:
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.get("format") != 1:
            raise UserError(f"{file}: expected a result of `gkdbench profile kernels --json`, got another file")
        if content["quick"]:
            raise UserError(
                f"{file}: expected a full run, got one with --quick, whose numbers mean nothing; run it without --quick"
            )
        found.append(Stored(file.stem, content))
    return found


def fill(text: str, stored: Sequence[Stored]) -> str:
    """`text` with the content of every ``<!-- bench NAME --> ... <!-- end NAME -->`` computed again.

    Raises:
        UserError: a mark of an unknown name, or without its end.
    """
    for name in re.findall(r"<!-- bench (\S+) -->", text):
        if name not in BLOCKS:
            raise UserError(f"<!-- bench NAME -->: expected one of {', '.join(BLOCKS)}, got {name!r}")
        begin, end = f"<!-- bench {name} -->", f"<!-- end {name} -->"
        if text.count(end) != 1:
            raise UserError(f"{begin}: expected one {end} after it, got {text.count(end)}")
        head, _, rest = text.partition(begin)
        tail = rest.partition(end)[2]
        text = f"{head}{begin}\n{block(name, stored)}\n{end}{tail}"
    return text


def block(name: str, stored: Sequence[Stored]) -> str:
    """The Markdown of one block."""
    if name in ("cpu", "gpu"):
        chosen = [one for one in stored if one.gpu == (name == "gpu") and not one.content.get("bars")]
        results = [result for one in chosen for result in one.content.get("results", [])]
        lines = [_place(result) for result in results]
        head = (
            "case",
            "ours",
            "fastest competitor",
            "ours / competitor (95 % interval)",
            "of the roof",
            "of the floor",
        )
        return _with_machine(chosen, _markdown(head, lines) + _absent(results)) if lines else NOTHING
    chosen = [one for one in stored if one.content.get(name)]
    if not chosen:
        return NOTHING
    rows = [row for one in chosen for row in one.content[name]]
    drawn = [f"![time against k](kernels-{one.name}-k.svg)" for one in chosen if name == "latency"]
    return "\n\n".join([_with_machine(chosen, _markdown(*_TABLES[name](rows))), *drawn])


def plots(stored: Sequence[Stored]) -> dict[str, str]:
    """File name -> SVG: a bar plot and a roofline for each file that has results."""
    found = {}
    for one in stored:
        bars, dots, roofs = [], [], one.content["roofs"]
        for result in one.content.get("results", []):
            mine, other = _fastest(result, ours=True), _fastest(result, ours=False)
            ratio = _ratio(result, mine, other)
            if ratio is not None:
                bars.append(RatioBar(result["name"], ratio["value"], ratio["low"], ratio["high"]))
            if mine is not None and result["green"]:
                cost, seconds = result["cost"], _seconds(mine)
                dots.append(Dot(result["name"], cost["flops"] / max(cost["bytes"], 1), cost["flops"] / seconds))
        machine = _machine(one)
        if bars:
            found[f"kernels-{one.name}-bars.svg"] = bar_plot(f"Time over the fastest competitor's; {machine}", bars)
        if dots:
            roof = roofline_plot(f"Roofline; {machine}", roofs["bytes_per_s"], roofs["flops_per_s"], dots)
            found[f"kernels-{one.name}-roofline.svg"] = roof
        if panels := _panels(one.content.get("latency", [])):
            title = f"Time and multiply-adds over those of k = 1; {machine}"
            found[f"kernels-{one.name}-k.svg"] = curve_plot(title, "experts a row, k", panels)
    return found


def _place(result: dict[str, Any]) -> tuple[str, ...]:
    mine, other = _fastest(result, ours=True), _fastest(result, ours=False)
    if not result["green"]:
        return (result["name"], "", "", "gate red", "", "")
    ratio = _ratio(result, mine, other)
    return (
        result["name"],
        mine["name"] if mine else "",
        other["name"] if other else "none ran",
        _interval(ratio) if ratio else "",
        f"{mine['percent_of_roof']:.0f} %" if mine else "",
        f"{mine['percent_of_floor']:.0f} %" if mine else "",
    )


def _absent(results: Sequence[dict[str, Any]]) -> str:
    """The competitors without a time in some case, each with the first reason why."""
    reasons: dict[str, str] = {}
    for row in (row for result in results for row in result["rows"]):
        if row["reason"] and not row["ours"]:
            reasons.setdefault(row["name"], f"{row['name']} ({row['reason']})")
    return (
        f"\n\nCompetitors without a time in at least one case: {shown('; '.join(reasons.values()))}." if reasons else ""
    )


def _ratio(result: dict[str, Any], mine: dict[str, Any] | None, other: dict[str, Any] | None) -> dict[str, Any] | None:
    if mine is None or other is None:
        return None
    clock = "device" if mine["samples"][0]["device_s"] is not None else "wall"
    sought = (mine["name"], other["name"], clock)
    rows: list[dict[str, Any]] = result["ratios"]
    return next((row for row in rows if (row["ours"], row["other"], row["clock"]) == sought), None)


def _fastest(result: dict[str, Any], *, ours: bool) -> dict[str, Any] | None:
    rows = [r for r in result["rows"] if r["status"] == "ok" and r["ours"] == ours and not r["yardstick"]]
    return min(rows, key=_seconds, default=None)


def _seconds(row: dict[str, Any]) -> float:
    clock = "wall_s" if row["samples"][0]["device_s"] is None else "device_s"
    values = sorted(float(sample[clock]) for sample in row["samples"])
    return values[len(values) // 2]


def _bars(rows: list[dict[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    lines: list[tuple[str, ...]] = [
        (
            row["bar"]["what"],
            f"<= {row['bar']['limit']:.2f} of {row['against']}",
            _interval(row["ratio"]) if row["ratio"] else row["reason"],
            row["verdict"],
        )
        for row in rows
    ]
    return ("operator", "bar", "measured (95 % interval)", "verdict"), lines


def _steps(rows: list[dict[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    ratios = [_interval(row["ratio"]) if row["ratio"] else "logits differ" for row in rows]
    lines: list[tuple[str, ...]] = [
        (row["data"], row["model"], row["way"], words) for row, words in zip(rows, ratios, strict=True)
    ]
    return ("data set", "model", "step", "ours / PyG (95 % interval)"), lines


def _methods(rows: list[dict[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    lines: list[tuple[str, ...]] = [
        (
            row["what"],
            row["data"],
            row["against"],
            "" if row["limit"] is None else f"<= {row['limit']:.2f}",
            _interval(row["ratio"]) if row["ratio"] else "the two differ",
            row["verdict"],
        )
        for row in rows
    ]
    return ("what", "on", "against", "target", "ours / theirs (95 % interval)", "verdict"), lines


def _latency(rows: list[dict[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    lines: list[tuple[str, ...]] = [
        (
            row["data"],
            str(row["rows"]),
            f"{point['k']} of {row['experts']}",
            f"{point['macs']:.2f}",
            _interval(point["ratio"]) if point["ratio"] else "the two differ",
        )
        for row in rows
        for point in row["points"]
        if point["k"] > 1
    ]
    return ("on", "rows", "k", "multiply-adds / those of k = 1", "time / that of k = 1 (95 % interval)"), lines


def _panels(curves: list[dict[str, Any]]) -> dict[str, list[Strand]]:
    """A panel per data set: the multiply-adds, and the time of each number of rows."""
    found: dict[str, list[Strand]] = {}
    for curve in curves:
        points = [(p["k"], p["ratio"]) for p in curve["points"] if p["ratio"]]
        if not points:
            continue
        macs = tuple((p["k"], p["macs"], p["macs"], p["macs"]) for p in curve["points"])
        strands = found.setdefault(curve["data"], [])
        name = "1 row" if curve["rows"] == 1 else f"{curve['rows']} rows"
        strands.append(Strand(name, tuple((k, r["value"], r["low"], r["high"]) for k, r in points)))
        strands[:] = [one for one in strands if not one.expected] + [Strand("multiply-adds", macs, expected=True)]
    return found


def _growth(rows: list[dict[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    lines: list[tuple[str, ...]] = [
        (
            row["operator"],
            row["backend"],
            f"{row['time_exponent']:.2f}",
            f"{row['memory_exponent']:.2f}",
            f"{row['largest_share']:.0%}",
        )
        for row in rows
    ]
    return ("operator", "backend", "time ~ E^", "memory ~ E^", "largest allocation / (edges x features)"), lines


_TABLES = {"bars": _bars, "steps": _steps, "methods": _methods, "latency": _latency, "growth": _growth}


def shown(text: str) -> str:
    """`text` with the names of stored results replaced by those that tables and terminals show."""
    for stored, name in _SHOWN.items():
        text = text.replace(stored, name)
    return text


def _interval(ratio: dict[str, Any]) -> str:
    return f"{ratio['value']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}], n={ratio['n']}"


def _with_machine(stored: Sequence[Stored], table: str) -> str:
    return f"Measured on {'; '.join(dict.fromkeys(_machine(one) for one in stored))}.\n\n{table}"


def _machine(one: Stored) -> str:
    where = one.content["provenance"]
    device = where.get("gpu") or f"{where['cpu']}, {one.content['threads']} threads"
    return f"{device}, torch {where['torch']}"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(shown(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
