"""``--only``: which cells of a suite to run, as ``field=value`` pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from gkdbench.errors import UnknownName, UserError
from gkdbench.execute.cell import Cell
from gkdbench.options import chosen_values
from gkdbench.records.key import MEMBER_STRIDE

_OWN: dict[str, Callable[[Cell], str]] = {
    "method": lambda cell: cell.group.identity.method,
    "dataset": lambda cell: cell.group.identity.dataset,
    "split": lambda cell: cell.group.identity.split,
    "index": lambda cell: str(cell.index),
    "seed": lambda cell: str(cell.seed),
    "variant": lambda cell: cell.group.method.variant,
    "recipe": lambda cell: cell.group.method.recipe or "",
    "backbone": lambda cell: str(cell.group.identity.config.get("backbone", "")),
    "key": lambda cell: cell.group.key,
}


def parse_only(text: str | None) -> dict[str, str]:
    """``"method=glnn|kd,seed=3"`` -> ``{"method": "glnn|kd", "seed": "3"}``; ``|`` separates alternatives.

    Raises:
        UserError: no ``=``, an unknown field, an index or seed that is no integer.
    """
    chosen = chosen_values(text or "", _OWN, "--only")
    for field in ("index", "seed"):
        if not all(value.isdigit() for value in chosen.get(field, "0").split("|")):
            raise UserError(f"--only {field}: expected an integer, got {chosen[field]!r}")
    return chosen


def matches(cell: Cell, only: Mapping[str, str]) -> bool:
    """Whether every chosen field of `cell` has one of its values (of ``key``: one of its beginnings)."""

    def fits(field: str, value: str) -> bool:
        own, wanted = _OWN[field](cell), value.split("|")
        return own.startswith(tuple(wanted)) if field == "key" else own in wanted

    return all(fits(field, value) for field, value in only.items())


def select(cells: Sequence[Cell], only: Mapping[str, str]) -> list[Cell]:
    """The cells that match. The further models of a run come with the ensemble that needs them, or by their seed.

    Raises:
        UnknownName: none does, because of a value that no cell has (with the nearest ones that exist).
        UserError: none does, because of the combination.
    """
    asked = [cell for cell in cells if cell.seed < MEMBER_STRIDE or "seed" in only]
    chosen = [cell for cell in asked if matches(cell, only)]
    if chosen or not cells:
        return chosen
    for field, value in only.items():
        if field != "key" and not any(matches(cell, {field: value}) for cell in cells):
            raise UnknownName(f"{field} in this suite", value, {_OWN[field](cell) for cell in cells} - {""})
    text = ",".join(f"{field}={value}" for field, value in only.items())
    raise UserError(
        f"--only: expected cells of this suite, got {text}, which no cell of this suite matches; `gkdbench plan` "
        "lists them"
    )
