"""A suite: what to run, as data. Strict at the boundary: an unknown key or a wrong type is refused by name."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from gkdbench.errors import UnknownName, UserError, invalid, nearest
from gkdbench.records.key import MEMBER_STRIDE, TUNING_SEEDS
from gkdbench.records.schema import SELECTION, TomlModel
from gkdbench.records.selection import SelectionRule
from gkdbench.safe_files import read_bytes

SMOKE = "smoke"
MOST_SEEDS = 1000
"""Training seeds of a suite at most: a range that never ends is a slip."""
TIME_LIMIT_S = 6 * 3600.0
"""The time limit of a cell whose suite gives none. No key depends on it."""
Tier = Literal["core", "full"]


class MethodEntry(TomlModel):
    """One method of a grid. Every key that is not listed here overrides a hyper-parameter.

    Args:
        datasets, splits: run on these only.
        overrides: hyper-parameters; ``variant`` and ``recipe`` among them.
        per_dataset: more overrides for one data set.
        search, trials: hyper-parameter -> values; the tuned tier tries so many settings, the published ones first.
    """

    method: str
    datasets: list[str] | None = None
    splits: list[str] | None = None
    overrides: dict[str, Any] = {}
    per_dataset: dict[str, dict[str, Any]] = {}
    search: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    trials: Annotated[int, Field(ge=2)] = 8

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "overrides" in data:
            return data
        own = {key: value for key, value in data.items() if key in cls.model_fields}
        return own | {"overrides": {key: value for key, value in data.items() if key not in cls.model_fields}}


def _ascending(levels: list[float]) -> list[float]:
    return sorted(set(levels))


Level = Annotated[float, Field(gt=0, le=1)]
Levels = Annotated[list[Level], Field(min_length=1), AfterValidator(_ascending)]


class Grid(TomlModel):
    """Methods x data sets x split ids.

    Args:
        sweeps: kind of corruption -> levels in (0, 1] at which the selected models are tried after training.
    """

    datasets: Annotated[list[str], Field(min_length=1)]
    splits: Annotated[list[str], Field(min_length=1)]
    methods: Annotated[list[MethodEntry], Field(min_length=1)]
    tier: Tier = "core"
    sweeps: dict[Literal["feature_noise", "edge_drop"], Levels] = {}


class Suite(TomlModel):
    """What a suite file says, read and checked.

    Args:
        name: as it is requested: ``node-small@1``, ``smoke``, or the file's name.
        seeds: training seeds; on random splits also the split indices.
        time_limit_s: per cell; six hours unless given, so that a method that hangs ends.
        memory_limit_bytes: per cell; none unless given.
        measures: ``"accuracy"``, or ``"cost"``: the cells' training and answers are timed (docs/cost.md).
        rows_of: names of suites whose published, corrected rows, and what these require, are measured too, on the data
            sets of this suite.
        selection: rule of selection of all cells, for studies of the rule (`gkdbench.records.selection`).
        requirement_overrides: data set -> method -> overrides for its cells that others require (smoke budgets).
        asked: what ``gkdbench run`` takes to find it again; its full name when empty.
    """

    name: str
    version: Annotated[int, Field(ge=1)] | None = None
    summary: str = ""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=MEMBER_STRIDE)], ...], Field(min_length=1)]
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    audit_every: Annotated[int, Field(ge=1)] = 1
    time_limit_s: Annotated[float, Field(gt=0)] = Field(default_factory=lambda: TIME_LIMIT_S)
    memory_limit_bytes: Annotated[int, Field(ge=2**20)] | None = None
    measures: Literal["accuracy", "cost"] = "accuracy"
    rows_of: list[str] = []
    selection: str = SELECTION
    grids: Annotated[list[Grid], Field(min_length=1)]
    requirement_overrides: dict[str, dict[str, dict[str, Any]]] = {}
    asked: str = ""

    @property
    def command_name(self) -> str:
        """The suite's name in commands that repeat its cells."""
        return self.asked or self.full_name

    @property
    def full_name(self) -> str:
        """``name@version``, or the name alone for suites without a version."""
        return self.name if self.version is None else f"{self.name}@{self.version}"


LARGEST_FILE = 2**20
"""Bytes of a suite file: a hundred times the largest published one."""


def load_suite(suite: str | Path | Suite) -> Suite:
    """The suite called `suite`: ``smoke``, a name like ``node-small@1``, or the path of a TOML file.

    Raises:
        UnknownName: no such suite.
        UserError: the file is not valid; the message names the key, what was expected and what was given.
    """
    if isinstance(suite, Suite):
        return suite
    if str(suite) == SMOKE:
        from gkdbench.execute.smoke import smoke_suite

        return smoke_suite()
    path, asked = Path(suite), str(suite)
    if path.suffix == ".toml":
        below = path.resolve().is_relative_to(Path.cwd())
        asked = str(path.resolve().relative_to(Path.cwd())) if below else path.name  # no personal paths in records
    else:
        named = suite_files()
        if asked not in named:
            raise UnknownName("suite", asked, [SMOKE, *named], "a path that ends in .toml is read as a file")
        path = named[asked]
    try:
        content = read_bytes(path, LARGEST_FILE)
    except OSError as error:
        raise UserError(f"suite file {path} cannot be read: {error.strerror}") from None
    try:
        document = tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML, or nested too deep
        raise UserError(f"{path} is not valid TOML: {error}; correct it") from None
    return parse_suite(document, where=str(path), asked=asked)


def suite_files() -> dict[str, Path]:
    """Published suites by name (``name@version``): of the installed package, or of the checkout."""
    here = Path(__file__).resolve().parents[1]
    folder = here / "_suites" if (here / "_suites").is_dir() else here.parent / "suites"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def parse_suite(document: Mapping[str, Any], *, where: str = "suite", asked: str = "") -> Suite:
    """A suite from parsed TOML: a ``[suite]`` table and one ``[[grid]]`` or more.

    Args:
        where: what messages begin with.
        asked: see `Suite`.

    Raises:
        UserError: unknown key (with the nearest known one), wrong type, value out of range.
    """
    for key in document:
        if key not in ("suite", "grid"):
            raise UserError(f"{where}: unknown table {key!r}; {nearest(key, ['suite', 'grid'])}")
    head = document.get("suite", {})
    if not isinstance(head, Mapping):
        raise UserError(f"{where}: [suite]: expected a table, got {head!r}")
    _refuse_unknown(head, _HEAD_KEYS, f"{where}: [suite]")
    data = dict(head) | {"grids": document.get("grid", []), "asked": asked}
    data.setdefault("name", Path(asked).stem if asked else "suite")
    data["seeds"] = parse_seeds(data.get("seeds", "0:10"), where)
    _refuse_unknown_in_grids(data["grids"], where)
    try:
        data["selection"] = str(SelectionRule.parse(str(data.get("selection", SELECTION))))
        suite = Suite.model_validate(data)
    except ValidationError as error:
        raise UserError(f"{where}: " + "; ".join(_explain(e) for e in error.errors())) from None
    _refuse_filters_of_nothing(suite, where)
    return suite


_HEAD_KEYS = [
    "name", "version", "summary", "seeds", "threads", "audit_every", "time_limit_s", "memory_limit_bytes",
    "measures", "rows_of", "selection",
]  # fmt: skip


def parse_seeds(value: Any, where: str) -> tuple[int, ...]:
    """``"0:10"`` (end left out) or a list of seeds; repeats are refused."""
    if isinstance(value, str):
        first, colon, last = value.partition(":")
        digits = (first + last).isascii() and first.isdigit() and last.isdigit()
        if not (colon and digits and (len(last) > 9 or len(first) > 9 or int(first) < int(last))):
            raise UserError(
                f'{where}: seeds: expected a range such as "0:10" or a list of integers, got {value!r:.100}'
            )
        if len(first) > 9 or len(last) > 9 or int(last) - int(first) > MOST_SEEDS:
            raise UserError(f'{where}: seeds: expected at most {MOST_SEEDS} seeds, got {value[:60]!r}; try "0:10"')
        value = range(int(first), int(last))
    if not isinstance(value, Sequence) or not all(isinstance(s, int) and not isinstance(s, bool) for s in value):
        raise UserError(f'{where}: seeds: expected a range such as "0:10" or a list of integers, got {value!r}')
    if used := set(value) & set(TUNING_SEEDS):
        raise UserError(
            f"{where}: seeds: expected seeds that are not kept for tuning, got {sorted(used)}; choose others"
        )
    if len(set(value)) != len(value):
        raise UserError(f"{where}: seeds: expected each once, got some listed twice: {value!r}")
    return tuple(value)


def _refuse_unknown(table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise UserError(f"{where}: unknown key {key!r}; {nearest(key, known)}")


def _refuse_unknown_in_grids(grids: Any, where: str) -> None:
    """Keys of grids; those of methods are hyper-parameters and are checked against the method itself."""
    for number, grid in enumerate(grids if isinstance(grids, list) else [], start=1):
        if isinstance(grid, Mapping):
            _refuse_unknown(grid, list(Grid.model_fields), f"{where}: grid {number}")


def _refuse_filters_of_nothing(suite: Suite, where: str) -> None:
    """A method's ``datasets``, ``splits`` and ``per_dataset`` name what its grid lists, as the grid writes it."""
    for number, grid in enumerate(suite.grids, start=1):
        for entry in grid.methods:
            for key, names, known in (
                ("datasets", entry.datasets, grid.datasets),
                ("splits", entry.splits, grid.splits),
                ("per_dataset", list(entry.per_dataset), grid.datasets),
            ):
                place = f"{where}: grid {number}: {entry.method}: {key}"
                if names is not None and not names and key != "per_dataset":
                    raise UserError(f"{place}: expected one name or more, got none; leave {key} out to run on all")
                for name in names or ():
                    if name not in known:
                        near = nearest(name, known)
                        raise UserError(f"{place}: expected names that the grid lists, got {name!r}; {near}")


def _explain(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    return invalid(where, error["input"], error["msg"])
