"""Flat models: selected although they hardly tell classes apart on their own training items."""

from __future__ import annotations

FLAT_ABOVE = 0.35
"""Training cross-entropy over log C of a selected model, above which it is flat (docs/protocol.md, section 4.1)."""

FLAT, FLAT_TEACHER = "flat", "flat teacher"
"""Flags of a row: one of its models is flat; one of its teachers is."""


def is_flat(train_ce_ratio: float | None) -> bool:
    """Whether a selected model is flat; False where the ratio was not stored.

    Args:
        train_ce_ratio: of `gkdbench.protocol.selection.cross_entropy_ratio`.
    """
    return train_ce_ratio is not None and train_ce_ratio > FLAT_ABOVE
