"""A backbone declares how many hops it reads, under whatever names its fields go; one that does not is refused."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar

import pytest
from support.small_graph import CLASSES, WIDTH

from gkdbench.errors import UserError
from gkdbench.nn.backbones import BACKBONES
from gkdbench.nn.mlp import MLPConfig
from gkdbench.nn.model import Backbone, Model
from gkdbench.nn.random import Randomness
from gkdbench.nn.sgc import SGCConfig
from gkdbench.registry import Entry
from gkdbench.training import models


@dataclass(frozen=True, kw_only=True)
class Undeclared(Backbone):
    """A backbone of another package that does not say what it reads."""

    name: ClassVar[str] = "wide_mlp"
    paper: ClassVar[str] = "of the test"
    revision: ClassVar[int] = 1

    depth: int = 2
    k: int = 3  # of anything: no name of a field says how far a backbone reads

    def build(self, in_features: int, out_features: int, randomness: Randomness) -> Model:
        return MLPConfig(layers=self.depth).build(in_features, out_features, randomness)

    def macs(self, in_features: int, out_features: int, num_nodes: int, num_edges: int, nnz: int) -> int:
        return nnz * out_features


@dataclass(frozen=True, kw_only=True)
class WideMLP(Undeclared):
    """The same, which declares that it reads features alone."""

    @property
    def hops(self) -> int:
        return 0


@dataclass(frozen=True, kw_only=True)
class Propagated(Undeclared):
    """The same name, and a depth of propagation."""

    @property
    def hops(self) -> int:
        return self.depth

    def build(self, in_features: int, out_features: int, randomness: Randomness) -> Model:
        return SGCConfig(hops=self.depth).build(in_features, out_features, randomness)


@pytest.fixture
def registered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The class that the test asks for, registered as an installed package would."""
    kind: type[Backbone] = request.param
    module = ModuleType("stranger_backbones")
    setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, "stranger_backbones", module)
    BACKBONES.entries()
    monkeypatch.setattr(BACKBONES, "_entries", dict(BACKBONES.entries()))
    monkeypatch.setattr(BACKBONES, "_loaded", {})
    BACKBONES.add(Entry(kind.name, f"stranger_backbones:{kind.__name__}", "stranger"))
    yield kind.name


@pytest.mark.parametrize(
    ("registered", "needs", "hops"),
    [(WideMLP, "features", None), (Propagated, "graph", 5)],
    indirect=["registered"],
)
def test_needs_follow_the_declaration_whatever_the_fields_are_called(
    registered: str, needs: str, hops: int | None
) -> None:
    config = models.backbone_config(registered, {"depth": 5})
    model = config.build(WIDTH, CLASSES, Randomness(0))
    predictor = models.as_predictor(config, model, CLASSES)
    assert (predictor.needs, predictor.hops) == (needs, hops)


@pytest.mark.parametrize("registered", [Undeclared], indirect=True)
def test_a_backbone_without_hops_is_refused_by_name(registered: str) -> None:
    with pytest.raises(
        UserError, match=r"backbone 'wide_mlp' declares no `hops`: expected .*add a property"
    ) as refused:
        models.backbone_config(registered, {})
    assert "number of message-passing layers" in str(refused.value)
