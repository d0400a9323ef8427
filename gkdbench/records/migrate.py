"""Records of older schema versions, brought to the current one. Each step lifts plain data by one version.

- 0 to 1: one `revision` became `revisions`, and `audit_every` came.
- 1 to 2: one `provenance` became `provenances`, to which each row points; `selection`, `audit_only`, and per row and
  model `looks`, `val_loss` and `train_ce_ratio` came.

`Record.control` came without a new version: files without it get it from the table in `gkdbench.records.old_controls`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gkdbench.errors import UserError
from gkdbench.records.schema import SCHEMA_VERSION

RecordJson = dict[str, Any]


def migrate(data: RecordJson) -> RecordJson:
    """`data` at SCHEMA_VERSION; data of that version come back as they are.

    Raises:
        UserError: a version of the future, or no version at all.
    """
    version = data.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool):
        raise UserError(f"schema_version: expected an integer, got {version!r}; is this a gkdbench record?")
    if version > SCHEMA_VERSION:
        raise UserError(
            f"schema_version: expected at most {SCHEMA_VERSION} in this gkdbench, got version {version}; update "
            "gkdbench"
        )
    while version < SCHEMA_VERSION:
        data = STEPS[version](dict(data))
        version += 1
        data["schema_version"] = version
    return data


def _from_0(data: RecordJson) -> RecordJson:
    """Version 0 named one revision only, and had no `audit_every`: every epoch was audited."""
    data["revisions"] = {data["method"]: data["revision"]}
    data.setdefault("audit_every", 1)
    return data


def _from_1(data: RecordJson) -> RecordJson:
    """Version 1 had one provenance, that of its newest row, and no rule of selection: protocol 1 had one rule.

    Every row points to that provenance, for it is the only one that is known. A file without one has an empty list, and
    rows that point nowhere. Validation losses, training cross-entropies and looks were not stored, and are absent.
    """
    provenance = data.pop("provenance", None)
    data["provenances"] = [] if provenance is None else [provenance]
    where = None if provenance is None else 0
    data["rows"] = [row | {"provenance": where} for row in data["rows"]]
    data["selection"] = "first"
    data["audit_only"] = data["split"] in AUDIT_ONLY
    return data


AUDIT_ONLY = ("tu-10fold-testfold",)
"""Split ids of version 1 whose validation part is the test part."""
STEPS: dict[int, Callable[[RecordJson], RecordJson]] = {0: _from_0, 1: _from_1}
