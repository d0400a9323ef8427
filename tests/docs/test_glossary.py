"""The glossary names places that exist, and no public class or type alias has two definitions."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from functools import cache

import pytest
from support.checkout import ROOT
from support.code_names import PACKAGES, tree
from support.document_references import defines, without_code

GLOSSARY = ROOT / "docs/glossary.md"
_PLACE = re.compile(r"`([\w./-]+\.py)::([\w.]+)`")


@cache
def terms() -> dict[str, list[tuple[str, str, str]]]:
    """Group -> its (term, meaning, place) in order; abbreviations have no place."""
    groups: dict[str, list[tuple[str, str, str]]] = {}
    for part in re.split(r"^## ", without_code(GLOSSARY.read_text(encoding="utf-8")), flags=re.MULTILINE)[1:]:
        rows = re.findall(r"^\| (?!---|Term|Short)([^|]+?) \| ([^|]+?) \|(?: ([^|]+?) \|)?", part, re.MULTILINE)
        groups[part.splitlines()[0]] = rows
    return groups


def public_types(source: ast.Module) -> set[str]:
    """Public classes and type aliases (names in capitalised words) at the top level of a module."""
    found = {node.name for node in source.body if isinstance(node, ast.ClassDef)}
    for node in source.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        names = (target.id for target in targets if isinstance(target, ast.Name))
        found |= {name for name in names if name[0].isupper() and any(letter.islower() for letter in name)}
    return {name for name in found if not name.startswith("_")}


@cache
def definitions() -> dict[str, list[str]]:
    """Public class or alias -> the files that define it."""
    found = defaultdict(list)
    for folder in PACKAGES.values():
        for path in sorted(folder.rglob("*.py")):
            for name in public_types(tree(path)):
                found[name].append(str(path.relative_to(ROOT)))
    return dict(found)


def test_no_public_class_is_defined_twice() -> None:
    assert {name: files for name, files in definitions().items() if len(files) > 1} == {}


def test_a_second_definition_would_be_found() -> None:
    source = ast.parse(
        "Rate = float\nLIMIT = 3\nclass Cell: ...\nclass _Cell: ...\nStatus: object = None\ndef Row(): ..."
    )
    assert public_types(source) == {"Rate", "Cell", "Status"}


@pytest.mark.parametrize("group", sorted(terms()))
def test_terms_stand_once_in_alphabetical_order(group: str) -> None:
    words = [term.lower() for term, _, _ in terms()[group]]
    assert len(words) > 5
    assert words == sorted(words)
    assert len(words) == len(set(words))


def test_no_two_groups_explain_one_term() -> None:
    words = [term.lower() for group, rows in terms().items() if group != "Abbreviations" for term, _, _ in rows]
    assert sorted({word for word in words if words.count(word) > 1}) == []


def test_every_term_has_a_sentence_and_a_place_that_exists() -> None:
    rows = [row for group, rows in terms().items() if group != "Abbreviations" for row in rows]
    assert [term for term, meaning, place in rows if len(meaning.split()) < 3 or not _PLACE.search(place)] == []
    places = set(_PLACE.findall(GLOSSARY.read_text(encoding="utf-8")))
    assert [f"{file}::{name}" for file, name in places if not (ROOT / file).is_file()] == []
    assert [f"{file}::{name}" for file, name in places if not defines(ROOT / file, name)] == []
    assert not defines(ROOT / "gkdbench/report/cells.py", "Cell")
    assert not defines(ROOT / "gkdbench/nn/model.py", "Backbone.depth")


def test_a_class_of_the_glossary_has_no_namesake() -> None:
    places = set(_PLACE.findall(GLOSSARY.read_text(encoding="utf-8")))
    classes = [(file, name.split(".")[0]) for file, name in places if name[0].isupper() and not name.isupper()]
    assert len(classes) > 90
    assert [name for file, name in classes if definitions().get(name) != [file]] == []
