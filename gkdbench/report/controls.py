"""Which records are controls: rows that a method has to beat before it may be called better (protocol section 10)."""

from __future__ import annotations

from typing import Any

from gkdbench.records.schema import Record

METHODS = ("mlp_params", "mlp_macs", "ensemble", "label_smoothing", "confidence_penalty")
"""docs/protocol.md, controls G1, G2, G3 and G4, G10."""
ROUTINGS = ("random", "random_each", "frozen")
"""docs/protocol.md, controls G5 and G6: values of a mixture's ``model.routing``."""
WITHOUT_TRANSFER: dict[str, tuple[str, Any]] = {
    "kd": ("alpha", 0.0),
    "dml": ("lam", 0.0),
    "alignahead": ("direction", "none"),
}
"""Control G9 of docs/protocol.md: the method's own loop with this field at this value. With several peers its mean is
the schedule's control, its best on validation and its ensemble are those of equal cost (docs/protocol.md, controls
G3, G4)."""


def is_control(record: Record) -> bool:
    """Whether `record` stands in its table to be beaten."""
    field, off = WITHOUT_TRANSFER.get(record.method, ("", None))
    model = record.config.get("model")
    routing = model.get("routing") if isinstance(model, dict) else None
    return record.method in METHODS or routing in ROUTINGS or (field in record.config and record.config[field] == off)
