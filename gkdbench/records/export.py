"""The record's JSON Schema, for readers in other languages."""

from __future__ import annotations

from typing import Any

from gkdbench.records.schema import SCHEMA_VERSION, Record


def record_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a record file; fields that differ between equal runs carry ``volatile: true``."""
    schema = Record.model_json_schema(mode="serialization")
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"gkdbench-record-{SCHEMA_VERSION}.json",
    }
    return head | schema
