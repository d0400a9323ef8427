"""Numbers that must not change silently: scores, losses and weight norms of every method after three epochs.

They are kept in golden.json under the revisions that made them, and the version of the protocol. A change that moves
numbers bumps `revision` of the method (or of its backbone) and then runs

    python tests/methods/golden.py

which adds numbers for new revisions, drops those of old ones, and refuses to overwrite any. While a method is in the
making, and nobody has results of it, ``golden.py NAME`` measures it alone and replaces its numbers.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gkdbench.nn.backbones import BACKBONES
from gkdbench.records.schema import PROTOCOL_VERSION
from gkdbench.testing.problems import small_problem
from gkdbench.testing.runs import Workshop, small_method
from gkdbench.training.method import Method
from gkdbench.training.registry import METHODS
from gkdbench.training.resolve import resolve

FILE = Path(__file__).with_name("golden.json")
EPOCHS = 3
TOLERANCE = 1e-4
MORE: Mapping[str, list[dict[str, Any]]] = {
    "teacher": [{"backbone": name} for name in ("gcn", "gat", "appnp", "mlp", "sgc")],
    "kd": [{"backbone": "gin", "teacher": "gin"}],
}
"""Settings measured beside the default ones, so that every backbone has its numbers."""

Case = tuple[str, str, str, str]
"""(method, variant, setting, overrides as JSON)."""


def cases() -> list[Case]:
    """What is measured: every method of this package in every variant, on its first kind of task."""
    found = []
    for name, entry in METHODS.entries().items():
        if not entry.owner.startswith("gkdbench ("):
            continue
        cls = METHODS.get(name)
        for overrides in ({}, *MORE.get(name, ())):
            graphs = overrides.get("backbone") == "gin" or "node" not in cls.kinds
            for variant in cls.variants:
                found.append((name, variant, "graph" if graphs else "tran", json.dumps(overrides)))
    return found


def key(case: Case) -> str:
    """The case and every revision that its numbers depend on, its teacher's included."""
    name, variant, setting, overrides = case
    method = resolve(name, {"variant": variant, **json.loads(overrides)})
    revisions = " ".join(f"{part}@{number}" for part, number in sorted({*_revisions(method), _PROTOCOL}))
    return f"{name} {overrides} {variant} {setting} | {revisions}"


_PROTOCOL = ("protocol", PROTOCOL_VERSION)


def _revisions(method: Method) -> Iterator[tuple[str, int]]:
    found = {(method.name, type(method).revision)}
    found |= {(f"backbone {name}", BACKBONES.get(name).revision) for name in method.backbones()}
    for need in method.requires().values():
        found |= set(_revisions(resolve(need.method, need.overrides, recipe=need.recipe)))
    yield from found


class Meter:
    """Measures cases in one folder, so that teachers are trained once."""

    def __init__(self, folder: Path) -> None:
        self._workshop = Workshop(folder, epochs=EPOCHS)
        self._problems = {setting: small_problem(setting) for setting in ("tran", "graph")}

    def measure(self, case: Case) -> dict[str, float]:
        """Name -> number: selected scores, losses per epoch, and the norm of every tensor after the last epoch."""
        name, variant, setting, overrides = case
        method = small_method(name, {"variant": variant, **json.loads(overrides)}, epochs=EPOCHS)
        run = self._workshop.run(method, self._problems[setting], stop_early=False)
        if run.outcome.status != "ok":
            raise AssertionError(f"{name} failed: {run.outcome.traceback or run.outcome.reason}")
        numbers: dict[str, float] = {}
        for model in run.scored.models:
            numbers[f"{model.name} val"] = model.val
            numbers |= {f"{model.name} {column}": score.value for column, score in model.scores.items()}
        for epoch, loss in enumerate(run.scored.arrays.get("terms/loss", ()), start=1):
            numbers[f"loss {epoch}"] = float(loss)
        for model_name, state in run.final.items():
            numbers |= {f"{model_name} |{tensor}|": float(value.double().norm()) for tensor, value in state.items()}
        return {what: float(f"{value:.7g}") for what, value in numbers.items()}


def load() -> dict[str, dict[str, float]]:
    """The stored numbers."""
    stored: dict[str, dict[str, float]] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    return stored


def differences(stored: Mapping[str, float], measured: Mapping[str, float]) -> list[str]:
    """What differs by more than the tolerance, or is in one of them only."""
    found = [f"{what} is in one of them only" for what in sorted(stored.keys() ^ measured.keys())]
    for what in sorted(stored.keys() & measured.keys()):
        old, new = stored[what], measured[what]
        if abs(old - new) > TOLERANCE * max(abs(old), abs(new)) + 1e-7:
            found.append(f"{what}: {old:g} before, {new:g} now")
    return found


def main(names: Sequence[str] = ()) -> int:
    """Bring golden.json up to the revisions of today; or replace the numbers of the methods `names`, and no others."""
    if names:
        return _replace({METHODS.entry(name).name for name in names})
    stored, kept, changed = load(), {}, False
    with tempfile.TemporaryDirectory() as folder:
        meter = Meter(Path(folder))
        for case in cases():
            measured = meter.measure(case)
            moved = differences(stored.get(key(case), measured), measured)
            if moved:
                changed = True
                print(f"{key(case)}\n  " + "\n  ".join(moved))
            kept[key(case)] = stored.get(key(case), measured)
    _store(kept)
    if changed:
        print("numbers changed under the same revision and were not stored: bump `revision`, or undo the change")
    return int(changed)


def _replace(names: set[str]) -> int:
    kept = {named: numbers for named, numbers in load().items() if named.split()[0] not in names}
    with tempfile.TemporaryDirectory() as folder:
        meter = Meter(Path(folder))
        _store(kept | {key(case): meter.measure(case) for case in cases() if case[0] in names})
    return 0


def _store(numbers: Mapping[str, Mapping[str, float]]) -> None:
    FILE.write_text(json.dumps(numbers, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
