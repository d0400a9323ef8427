"""What is known of every data set before a file is read: names, sizes, sources, sha256. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files as package_files
from typing import Any

from gkdbench.errors import UnknownName


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One raw file.

    Args:
        path: below the data folder, e.g. ``"Planetoid/Cora/raw/ind.cora.x"``.
        sha256: accepted digests (a file may exist in two containers of one content); empty when none is known.
        url: where a plain download finds it, or "". ``"...zip!member"`` names a member of an archive.
        optional: the set is whole without it (extra official splits).
        recoded: other containers of the same content are in use (line order, compression): another digest is
            accepted, and the set's content hash decides.
        size_bytes: of the largest registered file; 0 when not registered.
    """

    path: str
    sha256: tuple[str, ...] = ()
    url: str = ""
    optional: bool = False
    recoded: bool = False
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """The facts of one data set.

    Args:
        kind: ``"node"`` or ``"graph"``.
        status: of the registered files: "original" bytes of the source, "restored" or "re-encoded" content of it,
            "rebuilt" by the official procedure; "unregistered": read by its published format, no content hash yet.
        reader: module of ``gkdbench.data.readers`` that decodes its files; "" for built-in sets.
        stats: sizes after reading: nodes, edges (directed, no repeats), features, classes, graphs; a missing
            entry is unknown.
        splits: split ids it supports.
        views: split ids whose right source is another data set's file -> that set's name.
        content_hash: registered ``Task.content_hash`` of what the files decode to; "" when not registered.
        directed: edges are kept as the file lists them.
    """

    name: str
    kind: str
    reader: str
    source: str
    licence: str
    status: str = "built in"
    stats: Mapping[str, int] = field(default_factory=dict)
    splits: tuple[str, ...] = ()
    views: Mapping[str, str] = field(default_factory=dict)
    files: tuple[FileInfo, ...] = ()
    archive: str = ""
    metric: str = "accuracy"
    multi_label: bool = False
    directed: bool = False
    note: str = ""
    content_hash: str = ""
    aliases: tuple[str, ...] = ()

    @property
    def builtin(self) -> bool:
        return not self.files


@cache
def _document() -> Mapping[str, Any]:
    text = (package_files("gkdbench.data") / "catalogue.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def aliases() -> Mapping[str, str]:
    """Names that papers use -> canonical id."""
    table: Mapping[str, str] = _document()["aliases"]
    return table


def names() -> list[str]:
    """Canonical ids of all sets that this package knows, sorted."""
    return sorted(_document()["datasets"])


def canonical(name: str) -> str:
    """The canonical id behind a name as papers write it; an unknown name comes back folded, not refused."""
    folded = name.strip().lower().replace("_", "-").replace(" ", "-")
    return aliases().get(folded, folded)


def info(name: str) -> DatasetInfo:
    """The facts of `name` (canonical or alias).

    Raises:
        UnknownName: no such set in the catalogue.
    """
    canon = canonical(name)
    raw = _document()["datasets"].get(canon)
    if raw is None:
        raise UnknownName("dataset", name, names(), "`gkdbench list datasets` prints all")
    fields = {key: value for key, value in raw.items() if key not in ("files", "splits")}
    return DatasetInfo(
        name=canon,
        splits=tuple(raw["splits"]),
        files=tuple(_file(entry) for entry in raw.get("files", ())),
        aliases=tuple(alias for alias, target in aliases().items() if target == canon),
        **fields,
    )


def _file(entry: Mapping[str, Any]) -> FileInfo:
    digests = [entry.get("sha256"), entry.get("also", {}).get("sha256")]
    return FileInfo(
        path=entry["path"],
        sha256=tuple(digest for digest in digests if digest),
        url=entry.get("url", ""),
        optional=entry.get("optional", False),
        recoded=entry.get("recoded", False),
        size_bytes=max(entry.get("bytes", 0), entry.get("also", {}).get("bytes", 0)),
    )
