"""Plots as plain SVG: horizontal bars of ratios, a roofline, curves. Readable in light and dark, made by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_STYLE = (
    "<style>text{font:12px sans-serif;fill:#333}.axis{stroke:#999;stroke-width:1}.bar{fill:#3b6ea5}.over{fill:#b5533c}"
    ".span{stroke:#222;stroke-width:1.5}.roof{stroke:#b5533c;stroke-width:2;fill:none}.dot{fill:#3b6ea5}"
    ".strand{stroke-width:2;fill:none}.tone0{stroke:#3b6ea5}.tone1{stroke:#b5533c}.tone2{stroke:#4f8a4f}.tone3{stroke:#888}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.span{stroke:#eee}}</style>"
)
_ROW, _LEFT, _WIDE = 22, 430, 380


@dataclass(frozen=True, slots=True)
class RatioBar:
    """A ratio with its interval; below 1 is faster."""

    label: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Dot:
    """A measurement under the roofs: FLOP per byte, FLOP per second."""

    label: str
    intensity: float
    flops_per_s: float


def bar_plot(title: str, bars: Sequence[RatioBar]) -> str:
    """Ratios on a logarithmic axis, a line at 1; the numbers are next to the bars."""
    values = [limit for bar in bars for limit in (bar.low, bar.high)]
    low, high = min([0.5, *values]) / 1.2, max([2.0, *values]) * 1.2

    def at(value: float) -> float:
        return _LEFT + _WIDE * math.log(max(value, low) / low) / math.log(high / low)

    height = _ROW * (len(bars) + 3)
    parts = [_text(10, 18, title), _line(at(1.0), _ROW * 1.5, at(1.0), height - _ROW, "axis")]
    parts.append(_text(at(1.0) - 18, height - 6, "as fast"))
    for row, bar in enumerate(bars):
        y = _ROW * (row + 2)
        left, right = sorted((at(1.0), at(bar.value)))
        kind = "bar" if bar.value <= 1.0 else "over"
        parts.append(f'<rect class="{kind}" x="{left:.1f}" y="{y - 9}" width="{right - left:.1f}" height="13"/>')
        parts.append(_line(at(bar.low), y - 2, at(bar.high), y - 2, "span"))
        parts.append(_text(10, y + 2, bar.label))
        parts.append(_text(_LEFT + _WIDE + 10, y + 2, f"{bar.value:.2f} [{bar.low:.2f}, {bar.high:.2f}]"))
    return _svg(_LEFT + _WIDE + 160, height, parts)


def roofline_plot(title: str, bytes_per_s: float, flops_per_s: float, dots: Sequence[Dot]) -> str:
    """Speed over intensity, both relative to the ridge, on logarithmic axes: no absolute time can be read from it."""
    ridge = flops_per_s / bytes_per_s
    places = [(dot.intensity / ridge, dot.flops_per_s / flops_per_s, dot.label) for dot in dots]
    x_low, y_low = 1e-3, 1e-4
    x_high = max([10.0, *(2 * x for x, _, _ in places)])
    width, height, margin = 640, 420, 50

    def at(x: float, y: float) -> tuple[float, float]:
        across = math.log(max(x, x_low) / x_low) / math.log(x_high / x_low)
        up = math.log(max(y, y_low) / y_low) / math.log(2.0 / y_low)
        return margin + across * (width - 2 * margin), height - margin - up * (height - 2 * margin)

    corners = [at(x_low, x_low), at(1.0, 1.0), at(x_high, 1.0)]
    roof = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    parts = [
        _text(10, 18, title),
        f'<polyline class="roof" points="{roof}"/>',
        _line(margin, height - margin, width - margin, height - margin, "axis"),
        _line(margin, margin, margin, height - margin, "axis"),
        _text(width / 2 - 90, height - 14, "FLOP per byte, ridge = 1"),
        _text(8, margin - 10, "part of the peak"),
    ]
    for number, (x, y, label) in enumerate(places, 1):
        across, down = at(x, y)
        parts.append(
            f'<circle class="dot" cx="{across:.1f}" cy="{down:.1f}" r="4"><title>{escape(label)}</title></circle>'
        )
        parts.append(_text(across + 6, down + 4, str(number)))
        parts.append(_text(width, margin + 18 * number, f"{number}  {label}"))
    return _svg(width + 380, max(height, margin + 18 * (len(places) + 1)), parts)


@dataclass(frozen=True, slots=True)
class Strand:
    """A line of a `curve_plot`: (x, value, low, high) from left to right. `expected`: dashed, no intervals."""

    label: str
    points: tuple[tuple[float, float, float, float], ...]
    expected: bool = False


def curve_plot(title: str, across: str, panels: Mapping[str, Sequence[Strand]]) -> str:
    """Panels side by side, of lines with their intervals, on linear axes that begin at 0."""
    size, margin = 300, 46
    every = [point for strands in panels.values() for strand in strands for point in strand.points]
    right, top = max(point[0] for point in every), 1.05 * max(point[3] for point in every)
    parts = [_text(10, 18, title)]
    for number, (name, strands) in enumerate(panels.items()):
        left, bottom = margin + number * (size + margin), 40 + size

        def at(x: float, y: float, left: float = left, bottom: float = bottom) -> tuple[float, float]:
            return left + x / right * size, bottom - y / top * size

        parts += [_line(left, bottom, left + size, bottom, "axis"), _line(left, bottom, left, bottom - size, "axis")]
        parts += [_text(left, 36, name), _text(left + size / 2 - 60, bottom + 32, across)]
        parts += [
            _text(at(x, 0)[0] - 3, bottom + 15, f"{x:g}") for x in sorted({p[0] for s in strands for p in s.points})
        ]
        parts += [_text(left - 22, at(0, y)[1] + 4, f"{y}") for y in range(1, int(top) + 1)]
        for row, strand in enumerate(strands):
            tone = f"tone{row % 4}"
            path = " ".join("{:.1f},{:.1f}".format(*at(x, value)) for x, value, _, _ in strand.points)
            dashes = ' stroke-dasharray="5 4"' if strand.expected else ""
            parts.append(f'<polyline class="strand {tone}" points="{path}"{dashes}/>')
            if not strand.expected:
                parts += [_line(*at(x, low), *at(x, high), f"strand {tone}") for x, _, low, high in strand.points]
            parts.append(_line(left + 10, 56 + 16 * row, left + 30, 56 + 16 * row, f"strand {tone}"))
            parts.append(_text(left + 36, 60 + 16 * row, strand.label + (" (dashed)" if strand.expected else "")))
    return _svg(margin + len(panels) * (size + margin), size + 90, parts)


def _text(x: float, y: float, words: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img">'
    return "\n".join([head, _STYLE, *parts, "</svg>\n"])
