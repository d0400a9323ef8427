"""Measurements as a table of their own: a line each, ratios to the reference, sizes; no absolute time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gkdbench.errors import UserError
from gkdbench.records.measurement import Comparable, Measurement, ratio_of
from gkdbench.report.cells import count
from gkdbench.report.cost import ratio_text
from gkdbench.report.markdown import plain, table


@dataclass(frozen=True, slots=True)
class CostSelection:
    """Which measurements a table shows.

    Args:
        study: folder of studies whose measurements they are.
        methods, datasets: kept ones; none: all.
    """

    study: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()

    def keeps(self, one: Measurement) -> bool:
        """Whether `one` is shown."""
        by_method = not self.methods or one.method in self.methods
        return by_method and (not self.datasets or one.dataset in self.datasets)


def cost_table(measurements: Sequence[Measurement], selection: CostSelection | None = None) -> str:
    """A Markdown table, by data set, then as measured; below it what the references are, and which were noisy.

    Raises:
        UserError: nothing fits the selection.
    """
    kept = [one for one in measurements if selection is None or selection.keeps(one)]
    if not kept:
        raise UserError("no measurement fits the selection; run the suite, or widen it")
    kept.sort(key=lambda one: (one.dataset, one.method, one.parameters or 0, one.macs or 0, one.label))
    lines = [[plain(one.dataset), plain(one.label), *(plain(text(one)) for _, text in COLUMNS)] for one in kept]
    pairs = {(one.dataset, one.reference, one.training_reference) for one in kept}
    said = sorted({f"answers: {answers}; training: {epochs}" for _, answers, epochs in pairs})
    noisy = sum(one.noisy for one in kept)
    below = [f"Times over those of the reference ({' / '.join(said)}), with 95% intervals."]
    below += [f"{noisy} of {len(kept)} were taken on a busy machine."] if noisy else []
    titles = ["Data set", "Row", *(title for title, _ in COLUMNS)]
    return f"{table(titles, lines)}\n\n{' '.join(below)}"


def _ratio(what: Comparable) -> Callable[[Measurement], str]:
    def text(one: Measurement) -> str:
        if one.status != "ok":
            return f"{one.status}: {one.reason}" if what == "training" else "–"
        return ratio_text(ratio_of(one, what))

    return text


def size_text(value: int | None) -> str:
    """Bytes as 3.1 MB; ``"–"`` when not measured."""
    return "–" if value is None else f"{value / 1e6:.3g} MB"


COLUMNS: tuple[tuple[str, Callable[[Measurement], str]], ...] = (
    ("Training epoch", _ratio("training")),
    ("Inference", _ratio("inference")),
    ("Latency", _ratio("latency")),
    ("Training memory", lambda one: size_text(one.training.peak_bytes if one.training else None)),
    ("Prepared", lambda one: size_text(one.inference.prepared_bytes if one.inference else None)),
    ("Parameters", lambda one: count(one.parameters)),
    ("MACs", lambda one: count(one.macs)),
)
