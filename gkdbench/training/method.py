"""Method: a frozen dataclass whose fields are hyper-parameters and whose `fit` trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from gkdbench.controls import holds
from gkdbench.nn.model import settings_of
from gkdbench.protocol.selection import PROTOCOL_RULE
from gkdbench.protocol.view import Context, Fitted, TrainView

Variant = Literal["corrected", "as_released"]


@dataclass(frozen=True, slots=True)
class Requirement:
    """A cell that must be trained first: a method by name, its overrides, its named recipe.

    Args:
        member: the m-th of several independently seeded models of the run, by whose own teachers this method is
            taught too (their roles come along); None: a teacher, the same for every student of the run.
    """

    method: str
    overrides: Mapping[str, Any]
    recipe: str | None = None
    member: int | None = None


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """Base of all methods. Subclasses are frozen, keyword-only dataclasses with literal class attributes.

    Class attributes (literals, so that tables and docs are made without importing the file):
        name: registered name. paper, year, arxiv, repository, licence: where it comes from (licence of that
        repository). kinds: task kinds it handles. multi_label: whether it handles several labels per item, NaN where
        unknown. one_label: why it does not, which the plan says and ``show`` prints.
        deviations: how ``corrected`` differs from the official code, one sentence each. as_released_tie_break: what the
        official code keeps of equal validation scores, ``"first"`` or ``"later"``. revision: bumped when its numbers
        change. smoke: overrides for a run of seconds. needs: what it reads at inference. control: the kind of control
        that it is, one of `gkdbench.controls.CONTROLS`; "": none. control_when: field -> its values, see
        `gkdbench.controls.holds`: it is a control at these settings alone; empty: at all.

    Fields:
        variant: ``corrected`` (default) or ``as_released``.
        recipe: name of the published configuration that filled the fields, for labels and records.
    """

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    year: ClassVar[int | None] = None
    arxiv: ClassVar[str] = ""
    repository: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    needs: ClassVar[str] = "features"
    kinds: ClassVar[tuple[str, ...]] = ("node",)
    multi_label: ClassVar[bool] = False
    one_label: ClassVar[str] = ""
    variants: ClassVar[tuple[str, ...]] = ("corrected",)
    deviations: ClassVar[tuple[str, ...]] = ()
    as_released_tie_break: ClassVar[str] = "first"
    revision: ClassVar[int] = 1
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 5}
    control: ClassVar[str] = ""
    control_when: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    variant: Variant = "corrected"
    recipe: str | None = None

    @abstractmethod
    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        """Train on `view`; report to ``ctx.monitor`` once an epoch; return the deployable models."""

    def requires(self) -> Mapping[str, Requirement]:
        """Role -> the cell whose trained model this method needs as ``ctx.teachers[role]``."""
        return {}

    def backbones(self) -> tuple[str, ...]:
        """Names of the backbones whose revision belongs to this method's key."""
        return ()

    def why_one_label(self) -> str:
        """Why these settings do not train on several labels an item, for the plan to refuse them; "": they do."""
        return "" if self.multi_label else self.one_label or "its class does not set multi_label = True"

    @classmethod
    def figure(cls) -> Mapping[str, Sequence[int]] | None:
        """What ``gkdbench show METHOD --figure`` draws (`gkdbench.report.layers`); None: it has no figure.

        Returns:
            panel -> for every hidden layer (from 0) the layer of another model that it follows.
        """
        return None

    @property
    def control_kind(self) -> str | None:
        """The kind of control that these settings make, which records hold; None: no control."""
        return self.control if self.control and holds(self.control_when, self.config()) else None

    @property
    def label(self) -> str:
        """What tables print."""
        return self.name

    @property
    def as_released(self) -> bool:
        """Whether the published code's behaviour is requested."""
        return self.variant == "as_released"

    def selection_rule(self, rule: str = str(PROTOCOL_RULE)) -> str:
        """What selects this method's epochs: `rule`, that of the run, or what the release keeps of equal validation
        scores, where its form is requested."""
        return self.as_released_tie_break if self.as_released else rule

    def config(self) -> dict[str, Any]:
        """Every field, as plain data: what the record stores and the key covers (see `settings_of`)."""
        return settings_of(self)
