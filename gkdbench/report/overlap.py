"""Splits that overlap: where the runs of a row share training items, and by how much."""

from __future__ import annotations

from gkdbench.records.schema import Record

_FOLDS_TEST_TO_TRAIN = 10 / 81
"""Of ten folds, one is the test part, and a tenth of the others is for validation."""
_TWENTY_PER_CLASS = ("cpf-lcc-20-30", "cpf-lcc-20-30-ind20")


def overlap_ratio(record: Record, setting: str) -> float | None:
    """Test over training items of one split of `record`, where its runs have random splits of the same items; None
    where they share one fixed split, or the ratio is not known.
    """
    if len({row.index for row in record.rows}) < 2:
        return None
    if record.split == "tu-10fold":
        return _FOLDS_TEST_TO_TRAIN
    if record.split in _TWENTY_PER_CLASS:
        counts = {model.scores[setting].n for row in record.rows for model in row.models if setting in model.scores}
        return max(counts) / (20 * record.data.classes) if counts and max(counts) > 0 else None
    return None
