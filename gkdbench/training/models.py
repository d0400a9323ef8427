"""Backbones as methods use them: settings to a model, a model to a Predictor.

Order: check the settings, make the configuration, build the module from (seed, peer), wrap it as a Predictor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from gkdkernels import Features, SparseFeatures
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from gkdbench.errors import UnknownName, UserError, invalid
from gkdbench.nn.backbones import BACKBONES
from gkdbench.nn.model import Backbone, EdgeBackbone, Model
from gkdbench.nn.random import Randomness
from gkdbench.protocol.inputs import Inputs
from gkdbench.protocol.predictor import Predictor
from gkdbench.protocol.view import Teacher, TrainView


def backbone_config(name: str, settings: Mapping[str, Any]) -> Backbone:
    """The configuration of backbone `name` with `settings`, strictly checked.

    Raises:
        UnknownName: unknown backbone or setting. UserError: a value of the wrong type or out of range.
    """
    config: Backbone = validate_dataclass(BACKBONES.get(name), settings, f"backbone {name!r}")
    return config


def validate_dataclass(cls: type[Any], values: Mapping[str, Any], owner: str) -> Any:
    """The dataclass `cls` from `values`, each checked against its field's type and range, nothing coerced.

    Raises:
        UnknownName: a key that is not a field. UserError: every wrong value, with what was expected.
    """
    adapters = field_checks(cls)  # type: ignore[arg-type]  # classes are hashable
    wrong = []
    for key, value in toml_values(cls, values).items():
        if key not in adapters:
            raise UnknownName(f"setting of {owner}", key, adapters)
        try:
            adapters[key].validate_python(value, strict=True)
        except ValidationError as error:
            wrong += [invalid(key, value, e["msg"]) for e in error.errors()]
    if wrong:
        raise UserError(f"{owner}: " + "; ".join(wrong))
    return cls(**toml_values(cls, values))


@cache
def field_checks(cls: type[Any]) -> dict[str, TypeAdapter[Any]]:
    """Field of the dataclass `cls` -> what its values must pass; made once a process."""
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: TypeAdapter(hints[field.name]) for field in dataclasses.fields(cls)}


def toml_values(cls: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` in the types of a dataclass: TOML has lists where fields are tuples, and 1 where a field is a float."""
    hints = _plain_hints(cls)  # type: ignore[arg-type]  # classes are hashable
    found: dict[str, Any] = {}
    for key, value in values.items():
        hint = hints.get(key)
        allowed = {hint, *get_args(hint), *(get_origin(part) for part in (hint, *get_args(hint)))}
        if isinstance(value, list) and tuple in allowed:
            found[key] = tuple(value)
        elif isinstance(value, int) and not isinstance(value, bool) and float in allowed and int not in allowed:
            found[key] = float(value)
        else:
            found[key] = value
    return found


@cache
def _plain_hints(cls: type[Any]) -> dict[str, Any]:
    return get_type_hints(cls)


def build(config: Backbone, view: TrainView, *, seed: int, peer: int = 0, extra: int = 0) -> Model:
    """An untrained model of `config` for `view`, on its device, drawn from (seed, peer).

    Args:
        extra: columns that it reads beside the features (encodings).

    Example:
        >>> from gkdbench.testing import small_run
        >>> view, ctx = small_run()
        >>> model = build(backbone_config("gcn", {"hidden": 8}), view, seed=ctx.seed)
        >>> model(view.inputs.features, view.inputs.graph).shape
        torch.Size([210, 3])
    """
    inputs, edge_width = view.num_features + extra, view.inputs.edge_width
    model = build_module(config, inputs, view.num_classes, edge_width, Randomness(seed, peer))
    model.several_labels = view.multi_label
    return model.to(view.device)


def build_module(config: Backbone, inputs: int, classes: int, edge_width: int, randomness: Randomness) -> Model:
    """An untrained model of `config` for `inputs` columns and `classes` logits.

    Args:
        edge_width: columns of the edge features, for backbones that read them; 0: there are none.
    """
    if isinstance(config, EdgeBackbone):
        return config.build_with_edges(inputs, classes, edge_width, randomness)
    return config.build(inputs, classes, randomness)


def hidden_width(config: Backbone) -> int:
    """Columns of a hidden layer: ``hidden``, or all heads together."""
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    return int(fields.get("hidden") or fields["heads"] * fields["head_width"])


def nonzeros(features: Features) -> int:
    """Entries that a first layer multiplies: the stored ones of a sparse matrix, all of a dense one."""
    if isinstance(features, Tensor):
        return features.numel()
    if isinstance(features, SparseFeatures):
        return features.graph.num_edges
    return features.sparse.graph.num_edges + features.dense.numel()


def as_predictor(config: Backbone, model: Model, num_classes: int) -> Predictor:
    """`model` with its needs at inference declared."""

    def macs(inputs: Inputs) -> int:
        nodes, width = (int(n) for n in inputs.features.shape)
        edges = inputs.graph.num_edges
        of_edges = config.edge_macs(inputs.edge_width, nodes, edges) if isinstance(config, EdgeBackbone) else 0
        return config.macs(width, num_classes, nodes, edges, nonzeros(inputs.features)) + of_edges

    return Predictor(model, needs="graph" if config.hops else "features", hops=config.hops or None, macs=macs)


def load_teacher_model(teacher: Teacher, view: TrainView) -> Model:
    """The teacher's own module in its selected state, for methods that query it on changed inputs (KRD).

    Raises:
        UserError: another method than "teacher" trained it.
    """
    if "backbone" not in teacher.config:
        raise UserError(f"expected a solo teacher, which this student can run again, got one of {teacher.method!r}")
    config = backbone_config(teacher.config["backbone"], teacher.config["model"])
    model = build(config, view, seed=teacher.seed)
    model.load_state_dict(teacher.state)
    return model.eval()


def describe(backbone: str, settings: Mapping[str, Any], recipe: str | None = None) -> str:
    """A model in a table: ``GCN 2x64``, ``GAT 2x128 (8 heads)``, with the recipe it comes from."""
    config = backbone_config(backbone, settings)
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    heads = fields.get("heads")
    width = fields.get("hidden") or (heads or 1) * fields.get("head_width", 0)
    size = f" {fields['layers']}x{width}" if "layers" in fields and width else ""
    return f"{backbone.upper()}{size}{f' ({heads} heads)' if heads else ''}{f', {recipe}' if recipe else ''}"
