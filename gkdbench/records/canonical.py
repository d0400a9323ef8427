"""Records compared: volatile fields dropped, JSON written one way only."""

from __future__ import annotations

import hashlib
import json
from typing import Any, get_args

from pydantic import BaseModel


def canonical_json(value: Any) -> str:
    """The one JSON text of `value`: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def sha256_json(value: Any) -> str:
    """sha256 of the canonical JSON of `value`, hex."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def stable(model: BaseModel) -> dict[str, Any]:
    """`model` as plain data without its volatile fields, at every depth: what equality means for records."""
    kept: dict[str, Any] = {}
    for name, field in type(model).model_fields.items():
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("volatile"):
            continue
        kept[name] = _stable(getattr(model, name))
    return kept


def _stable(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return stable(value)
    if isinstance(value, list | tuple):
        return [_stable(item) for item in value]
    if isinstance(value, dict):
        return {key: _stable(item) for key, item in value.items()}
    return value


def volatile_fields(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Dotted names of every volatile field below `model`; lists and dicts are entered."""
    found: list[str] = []
    for name, field in model.model_fields.items():
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("volatile"):
            found.append(prefix + name)
            continue
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                found += volatile_fields(part, f"{prefix}{name}.")
    return found
