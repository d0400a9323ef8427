"""The split families (docs/protocol.md, section 2), as data. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from gkdbench.errors import UnknownName

PARTS = ("train", "val", "test")

Setting = Literal["tran", "ind", "graph"]

_RAW = {
    "component": "all",
    "edges": "undirected",
    "self_loops": "added",
    "features": "raw",
}
_CPF = _RAW | {"component": "largest"}
_PLANETOID = _RAW | {"features": "row-normalised"}
_GRAPHS = {
    "component": "all",
    "edges": "as filed",
    "self_loops": "as filed",
    "features": "raw",
}


@dataclass(frozen=True, slots=True)
class SplitFamily:
    """One way of splitting; scores of two families never share a column.

    Args:
        preprocessing: what is done to graph and features before the split; part of the key.
        kinds: what it splits: ``"node"``, ``"graph"``.
        random: a new split for each index (statistics treat its runs so), else one fixed split or a fixed list.
        setting: the training regime. "tran": all nodes are seen; "ind": the unseen part of the test set and its
            edges are absent from training; "graph": items are graphs.
        columns: the settings that are reported from one training.
        indices: how many splits there are; None: any index >= 0.
        official: made of ids that come with the files (``Task.official``).
        replication_only: exists to compare with a publication, never a headline.
        audit_only: breaks the protocol on purpose (test used for selection), to compare with releases that do.
        base: the family whose parts it takes; "" for its own.
        classes: needs one class per item (stratified, or so many of each class).
    """

    id: str
    summary: str
    preprocessing: Mapping[str, str]
    kinds: tuple[str, ...] = ("node",)
    random: bool = False
    setting: Setting = "tran"
    columns: tuple[str, ...] = ("tran",)
    indices: int | None = 1
    official: bool = False
    replication_only: bool = False
    audit_only: bool = False
    base: str = ""
    classes: bool = False

    @property
    def own(self) -> bool:
        """Whether its splits are those that came with somebody's own data: how many there are, the data say."""
        return self.official and not self.random and self.id in ("own", "own-graph")


def _random(name: str, summary: str, preprocessing: Mapping[str, str], **facts: Any) -> SplitFamily:
    return SplitFamily(name, summary, preprocessing, random=True, **({"indices": None} | facts))


def _fifth_unseen(family: SplitFamily) -> SplitFamily:
    """The same parts, a random fifth of the test nodes unseen in training."""
    return replace(
        family,
        id=f"{family.id}-ind20",
        base=family.id,
        summary=f"{family.id} with a random fifth of the test nodes unseen in training",
        setting="ind",
        columns=("tran", "ind", "prod", "coldstart"),
        random=True,
        indices=None,
    )


_CPF_MAIN = _random(
    "cpf-lcc-20-30", "largest component; 20 per class train, 30 per class validation, rest test", _CPF, classes=True
)
_BUILTIN = _random(
    "builtin-random", "20 per class train, 30 per class validation, rest test, whole graph", _RAW, classes=True
)
_GRAPH_ITEMS: Mapping[str, Any] = {"kinds": ("graph",), "setting": "graph", "columns": ("graph",)}
_OGB = SplitFamily("ogb", "OGB's official split (arxiv by year, products by sales rank)", _RAW, official=True)
_TU = _random(
    "tu-10fold",
    "stratified ten-fold (seed 12345): fold k test, a tenth of the rest validation",
    _GRAPHS,
    indices=10,
    classes=True,
    **_GRAPH_ITEMS,
)

_OWN = SplitFamily("own", "the split that came with your own graph", _RAW, indices=None, official=True)

_TABLE = (
    SplitFamily(
        "planetoid-public", "20 per class train, 500 validation, 1,000 test: the fixed masks", _PLANETOID, official=True
    ),
    SplitFamily(
        "planetoid-ind",
        "the public masks with all test nodes and their edges unseen in training",
        _PLANETOID,
        base="planetoid-public",
        setting="ind",
        columns=("ind",),
        official=True,
    ),
    _CPF_MAIN,
    replace(
        _CPF_MAIN,
        id="cpf-lcc-20-30/seed0",
        summary="the one split of seed 0, as in CPF's tables",
        base="cpf-lcc-20-30",
        random=False,
        indices=1,
        replication_only=True,
    ),
    _fifth_unseen(_CPF_MAIN),
    SplitFamily("official-10", "the ten masks that come with the files", _RAW, indices=10, official=True),
    SplitFamily("wikics-20", "twenty training masks and one test set", _RAW, indices=20, official=True),
    _OGB,
    _fifth_unseen(_OGB),
    SplitFamily("ogb-graph", "OGB's official scaffold split", _GRAPHS, official=True, **_GRAPH_ITEMS),
    _TU,
    replace(
        _TU,
        id="tu-10fold-testfold",
        summary="the same folds, the test fold doubling as validation",
        base="tu-10fold",
        audit_only=True,
    ),
    SplitFamily(
        "ppi",
        "20 graphs train, 2 validation, 2 test; the test graphs unseen in training",
        _RAW,
        setting="ind",
        columns=("ind",),
        official=True,
    ),
    _BUILTIN,
    _fifth_unseen(_BUILTIN),
    _random("random-80-10-10", "80% train, 10% validation, 10% test within each class", _GRAPHS, **_GRAPH_ITEMS),
    _random("node-80-10-10", "random-80-10-10 for nodes, several labels a node included", _RAW, base="random-80-10-10"),
    _OWN,
    _fifth_unseen(_OWN),
    replace(_OWN, id="own-graph", preprocessing=_GRAPHS, **_GRAPH_ITEMS),
)

SPLIT_FAMILIES: Mapping[str, SplitFamily] = {family.id: family for family in _TABLE}


def split_family(split_id: str) -> SplitFamily:
    """The family called `split_id`.

    Raises:
        UnknownName: no such family.
    """
    found = SPLIT_FAMILIES.get(split_id)
    if found is None:
        raise UnknownName("split", split_id, SPLIT_FAMILIES, "`gkdbench list splits` prints all")
    return found
