"""The split families (protocol section 2), as data. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gkdbench.errors import UnknownName

Setting = Literal["tran", "ind"]

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
_FOUR = ("tran", "ind", "prod", "coldstart")


@dataclass(frozen=True, slots=True)
class SplitFamily:
    """One way of splitting; scores of two families never share a column.

    Args:
        kinds: what it splits: ``"node"``, ``"graph"``.
        random: a new split for each index (statistics treat its runs so), else one fixed split or a fixed list.
        setting: the training regime. "ind": the unseen part of the test set and its edges are absent from training.
        columns: the settings that are reported from one training.
        indices: how many splits there are; None: any index >= 0.
        official: made of ids that come with the files (``Task.official``).
        replication_only: exists to compare with a publication, never a headline.
        audit_only: breaks the protocol on purpose (test used for selection), to compare with releases that do.
        preprocessing: what is done to graph and features before the split; part of the key.
    """

    id: str
    summary: str
    kinds: tuple[str, ...]
    random: bool
    setting: Setting
    columns: tuple[str, ...]
    indices: int | None
    official: bool = False
    replication_only: bool = False
    audit_only: bool = False
    preprocessing: Mapping[str, str] = field(default_factory=dict)


_TABLE = (
    SplitFamily("planetoid-public", "20 per class train, 500 validation, 1,000 test: the fixed masks", ("node",),
                False, "tran", ("tran",), 1, official=True, preprocessing=_PLANETOID),
    SplitFamily("planetoid-ind", "the public masks with all test nodes and their edges unseen in training", ("node",),
                False, "ind", ("ind",), 1, official=True, preprocessing=_PLANETOID),
    SplitFamily("cpf-lcc-20-30", "largest component; 20 per class train, 30 per class validation, rest test", ("node",),
                True, "tran", ("tran",), None, preprocessing=_CPF),
    SplitFamily("cpf-lcc-20-30/seed0", "the one split of seed 0, as in CPF's tables", ("node",),
                False, "tran", ("tran",), 1, replication_only=True, preprocessing=_CPF),
    SplitFamily("cpf-lcc-20-30-ind20", "cpf-lcc-20-30 with a random fifth of the test nodes unseen in training", ("node",),
                True, "ind", _FOUR, None, preprocessing=_CPF),
    SplitFamily("official-10", "the ten 60/20/20 (or 50/25/25) masks that come with the files", ("node",),
                False, "tran", ("tran",), 10, official=True, preprocessing=_RAW),
    SplitFamily("wikics-20", "the twenty training masks of WikiCS and its one test set", ("node",),
                False, "tran", ("tran",), 20, official=True, preprocessing=_RAW),
    SplitFamily("ogb", "OGB's official split (arxiv by year, products by sales rank)", ("node",),
                False, "tran", ("tran",), 1, official=True, preprocessing=_RAW),
    SplitFamily("ogb-ind20", "the official split with a random fifth of the test nodes unseen in training", ("node",),
                True, "ind", _FOUR, None, official=True, preprocessing=_RAW),
    SplitFamily("ogb-graph", "OGB's official scaffold split", ("graph",),
                False, "tran", ("tran",), 1, official=True, preprocessing=_GRAPHS),
    SplitFamily("tu-10fold", "stratified ten-fold (seed 12345): fold k test, a tenth of the rest validation", ("graph",),
                True, "tran", ("tran",), 10, preprocessing=_GRAPHS),
    SplitFamily("tu-10fold-testfold", "the same folds, the test fold doubling as validation", ("graph",),
                True, "tran", ("tran",), 10, audit_only=True, preprocessing=_GRAPHS),
    SplitFamily("ppi", "20 graphs train, 2 validation, 2 test; the test graphs unseen in training", ("node",),
                False, "ind", ("ind",), 1, official=True, preprocessing=_RAW),
    SplitFamily("builtin-random", "20 per class train, 30 per class validation, rest test, whole graph", ("node",),
                True, "tran", ("tran",), None, preprocessing=_RAW),
    SplitFamily("builtin-random-ind20", "builtin-random with a random fifth of the test nodes unseen in training", ("node",),
                True, "ind", _FOUR, None, preprocessing=_RAW),
    SplitFamily("random-80-10-10", "80% train, 10% validation, 10% test, stratified where labels are classes",
                ("graph",), True, "tran", ("tran",), None, preprocessing=_GRAPHS),
    SplitFamily("node-80-10-10", "random-80-10-10 for nodes, several labels a node included", ("node",),
                True, "tran", ("tran",), None, preprocessing=_RAW),
)  # fmt: skip

SPLIT_FAMILIES: Mapping[str, SplitFamily] = {family.id: family for family in _TABLE}


def split_family(split_id: str) -> SplitFamily:
    """The family called `split_id`.

    Raises:
        UnknownName: no such family.
    """
    found = SPLIT_FAMILIES.get(split_id)
    if found is None:
        raise UnknownName(
            "split", split_id, SPLIT_FAMILIES, "`gkdbench list splits` prints all"
        )
    return found
