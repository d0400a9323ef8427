"""Which layer of which student follows which: students side by side, their layers stacked, as plain SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gkdbench.report.markup import Markup, tag

WIDE, HIGH, APART, PITCH = 66, 26, 40, 46
"""A layer's box, the space between students, and from a layer to the next."""
LEFT, TOP, GAP = 16, 64, 48
_STYLE = (
    "text{font:12px sans-serif;fill:#333;text-anchor:middle}.head{font-weight:bold}.note{text-anchor:start}"
    "rect{fill:#3b6ea5;fill-opacity:.14;stroke:#3b6ea5}.learner rect{fill:#d1782a;fill-opacity:.2;stroke:#d1782a}"
    ".out rect{fill:none;stroke:#999;stroke-dasharray:3 3}.forward{stroke:#999}"
    ".follows{fill:none;stroke:#d1782a;stroke-width:1.5}.wraps{stroke-dasharray:5 4}#head path{fill:#d1782a}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.forward{stroke:#777}}"
)


def layer_figure(followed: Mapping[str, Sequence[int]], students: int = 3) -> str:
    """A panel for each direction; arrows end at a layer of the student in the middle, at the layer that learns.

    Args:
        followed: direction -> for every hidden layer (from 0) the layer of a co-student that it follows.
        students: M, two or more. The arrows of one are drawn: the others learn alike.
    """
    layers = len(next(iter(followed.values())))
    panel = students * WIDE + (students - 1) * APART
    width = 2 * LEFT + len(followed) * panel + (len(followed) - 1) * GAP
    height = TOP + (layers + 1) * PITCH + 30
    title = f"{students} students of {layers} hidden layers: which layer follows which"
    arrow = tag("path", d="M0,0 L8,4 L0,8 z")
    shape = {"markerUnits": "userSpaceOnUse", "markerWidth": 8, "markerHeight": 8, "refX": 8, "refY": 4}
    head = tag("marker", arrow, id="head", orient="auto", **shape)
    marks = [tag("style", Markup(_STYLE)), tag("defs", head), _note()]
    for number, (direction, follows) in enumerate(followed.items()):
        shift = f"translate({LEFT + number * (panel + GAP)} 0)"
        marks.append(tag("g", _panel(direction, follows, students, panel), transform=shift))
    space, box = "http://www.w3.org/2000/svg", f"0 0 {width} {height}"
    body = [tag("title", title), marks]
    return str(tag("svg", body, xmlns=space, viewBox=box, width=width, height=height, role="img")) + "\n"


def _note() -> Markup:
    words = "Arrows end at the layer that learns another's local structure; dashed where the order wraps around."
    return tag("text", words, x=LEFT, y=18, class_="note")


def _panel(direction: str, followed: Sequence[int], students: int, wide: int) -> list[Markup]:
    layers, learner = len(followed), (students - 1) // 2
    marks = [tag("text", direction, x=wide / 2, y=44, class_="head")]
    for student in range(students):
        boxes = [_box(student, layer, layers, f"layer {layer + 1}") for layer in range(layers)]
        output = tag("g", _box(student, layers, layers, "labels"), class_="out")
        name = tag("text", f"student {student + 1}", x=_left(student) + WIDE / 2, y=_top(-1, layers) + 14)
        ups = [_up(student, layer, layers) for layer in range(layers)]
        marks.append(tag("g", [ups, boxes, output, name], class_="learner" if student == learner else None))
    others = [student for student in range(students) if student != learner]
    for layer, of in enumerate(followed):
        marks += [_arrow(other, of, learner, layer, layers) for other in others]
    return marks


def _left(student: int) -> int:
    return student * (WIDE + APART)


def _top(layer: int, layers: int) -> int:
    """Of a box; the first layer is at the bottom."""
    return TOP + (layers - layer) * PITCH


def _box(student: int, layer: int, layers: int, words: str) -> list[Markup]:
    x, y = _left(student), _top(layer, layers)
    middle = tag("text", words, x=x + WIDE / 2, y=y + HIGH / 2 + 4)
    return [tag("rect", x=x, y=y, width=WIDE, height=HIGH, rx=4), middle]


def _up(student: int, layer: int, layers: int) -> Markup:
    x, y = _left(student) + WIDE / 2, _top(layer, layers)
    return tag("line", x1=x, x2=x, y1=y, y2=y - PITCH + HIGH, class_="forward")


def _arrow(other: int, of: int, learner: int, layer: int, layers: int) -> Markup:
    """From layer `of` of a student to `layer` of the learner."""
    right = other < learner  # the arrow leaves on the side of the learner
    start = _left(other) + (WIDE if right else 0)
    end = _left(learner) + (0 if right else WIDE)
    y0, y1 = _top(of, layers) + HIGH / 2, _top(layer, layers) + HIGH / 2
    bend = (end - start) / 2
    path = f"M{start},{y0:g} C{start + bend:g},{y0:g} {end - bend:g},{y1:g} {end},{y1:g}"
    wraps = " wraps" if abs(of - layer) > 1 else ""
    return tag("path", d=path, class_=f"follows{wraps}", marker_end="url(#head)")
