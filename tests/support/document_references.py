"""What documents, docstrings and comments refer to, and what of it is not there.

Each finder takes a text and returns what it could not resolve, so that a test can also give it a text with a planted
fault.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from support.checkout import ROOT
from support.code_names import CodeNames, code_names, tree, verbs

_FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_LINK = re.compile(r"!?\[(?:[^\]]*)\]\(([^)\s]+)\)")
_DOCUMENT = re.compile(r"(?<![\w/.-])((?:[\w-]+/|\.\./)*[\w-]+\.md)\b")
_SECTION = re.compile(r"\b(?:([\w-]+)\.md|(protocol|design)),?\s+sections?\s+(\d+(?:\.\d+)?)")
_NUMBERED = {
    "trap": re.compile(r"\btraps?\s+((?:\d+(?:,\s*|\s+and\s+)?)+)"),
    "decision": re.compile(r"\b(?:design|\.md,)\s+decisions?\s+((?:\d+(?:,\s*|\s+and\s+)?)+)"),
    "control": re.compile(r"(?<![\w.*])G(\d+)(?![\w(])"),
    "case": re.compile(r"(?<![\w.*])H(\d)(?![\w(.])"),
}
_OTHER_MARK = re.compile(r"\b[\w-]+\.md,?\s+([A-Z]\d+)\b")
_EXTENSION = r"(?:py|md|toml|json|npz|svg|html|csv|lock|cfg|txt|cff|yaml|yml)"
_PATH = re.compile(rf"^[\w.<>~/@*-]+/[\w.<>~/@*-]*$|^[\w.@*-]+\.{_EXTENSION}$")
_NAME = re.compile(r"^[A-Za-z_]\w*(?:\.\w+)*(?:\(\))?$")
_ABBREVIATION = re.compile(r"(?<![\w@/.-])([A-Z][A-Z0-9]{1,5})(?![\w@/]|-[A-Z0-9]|\.\w)")


def without_code(text: str) -> str:
    """Markdown without its fenced blocks; line numbers stay."""
    return _FENCE.sub(lambda block: "\n" * block[0].count("\n"), text)


def spans(text: str) -> list[str]:
    """What stands between single backticks, outside fenced blocks, on one line."""
    return [span.replace("\n", " ") for span in _SPAN.findall(without_code(text))]


@cache
def slugs(path: Path) -> frozenset[str]:
    """Anchors of a Markdown file's headings, by the rule of GitHub."""
    found: list[str] = []
    for heading in re.findall(r"^#{1,6}\s+(.*?)\s*#*$", without_code(path.read_text(encoding="utf-8")), re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        found.append(f"{slug}-{found.count(slug)}" if slug in found else slug)
    return frozenset(found)


def broken_links(text: str, folder: Path, own: frozenset[str] = frozenset()) -> list[str]:
    """Relative links of a Markdown text in `folder` whose file or heading does not exist. `own`: its own anchors."""
    bad = []
    for target in _LINK.findall(without_code(text)):
        if "://" in target or target.startswith("mailto:"):
            continue
        file, _, anchor = target.partition("#")
        path = folder / file
        anchors = slugs(path) if file.endswith(".md") and path.exists() else frozenset() if file else own
        if not path.exists() or (anchor and anchor not in anchors):
            bad.append(target)
    return bad


def absent_documents(text: str, folder: Path) -> list[str]:
    """Names of Markdown files in `text` that lie neither beside it, nor in docs/, nor in the root."""
    places = (folder, ROOT, ROOT / "docs")
    return [name for name in _DOCUMENT.findall(text) if not any((place / name).exists() for place in places)]


@cache
def numbered() -> dict[str, frozenset[str]]:
    """What docs number: sections per page, traps, decisions, controls, and the cases of a method's tests."""
    protocol, design = ((ROOT / f"docs/{name}.md").read_text(encoding="utf-8") for name in ("protocol", "design"))
    return {
        "protocol": frozenset(re.findall(r"^##+ (\d+(?:\.\d+)?)\.? ", protocol, re.MULTILINE)),
        "decision": frozenset(re.findall(r"^### Decision (\d+)$", design, re.MULTILINE)),
        "trap": frozenset(re.findall(r"^\| (\d+) \| ", protocol, re.MULTILINE)),
        "control": frozenset(re.findall(r"^\| G(\d+) \| ", protocol, re.MULTILINE)),
        "case": frozenset(re.findall(r"^\| H(\d+) \| ", protocol, re.MULTILINE)),
    }


def absent_numbers(text: str) -> list[str]:
    """References to a section, trap, decision, control or case that no page has."""
    bad = []
    for page, word, section in _SECTION.findall(text):
        if section not in numbered().get(page or word, ()):
            bad.append(f"{page or word} section {section}")
    for kind, pattern in _NUMBERED.items():
        for found in pattern.findall(text):
            bad += [f"{kind} {number}" for number in re.findall(r"\d+", found) if number not in numbered()[kind]]
    return bad + [f"mark {mark}" for mark in _OTHER_MARK.findall(text)]


def unknown_names(found: list[str], folder: Path, names: CodeNames, allowed: frozenset[str]) -> list[str]:
    """Of backticked texts, those that look like code and lead nowhere.

    A text looks like code when it is a path, a command of ``gkdbench``, a test's ``file.py::name`` or a word or dotted
    name. Formulas and prose are passed over.
    """
    bad = []
    for span in found:
        if span in allowed:
            continue
        if span.startswith("gkdbench "):
            bad += [span] * bool(bad_command(span))
        elif "::" in span:
            bad += [span] * (not _definition_exists(span))
        elif _PATH.match(span):
            bad += [span] * (not _path_exists(span, folder))
        elif _NAME.match(span):
            bad += [span] * (not names.knows(span.removesuffix("()")))
    return bad


def bad_command(command: str) -> str:
    """What of a ``gkdbench ...`` command its parser does not know; empty if nothing."""
    words = re.sub(r"\s(?:[|>&].*|#.*)$", "", command).split()[1:]
    if not words or not re.fullmatch(r"[a-z]+", words[0]):
        return ""
    if words[0] not in verbs():
        return words[0]
    options = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    if unknown := options - verbs()[words[0]]:
        return ", ".join(sorted(unknown))
    suites = [word for word in words if re.fullmatch(r"[\w-]+@\d+", word)]
    return ", ".join(name for name in suites if not (ROOT / f"suites/{name}.toml").exists())


def commands(text: str) -> list[str]:
    """Commands of ``gkdbench`` on lines of their own, in fenced or indented blocks."""
    found = re.findall(r"^ {4,}(gkdbench [a-z]+(?: .*)?)$", without_code(text), re.MULTILINE)
    for block in _FENCE.findall(text):
        found += re.findall(r"^ *(?:\$ )?(gkdbench [a-z]+(?: .*)?)$", block, re.MULTILINE)
    return found


def _definition_exists(span: str) -> bool:
    file, name = span.split("::", 1)
    return any(defines(path, name) for path in files_named(file))


@cache
def files_named(name: str) -> tuple[Path, ...]:
    """Files of the checkout whose path is `name`, or ends with it."""
    if (ROOT / name).is_file():
        return (ROOT / name,)
    return tuple(path for path in _files() if str(path).endswith(f"/{name}"))


def defines(path: Path, name: str) -> bool:
    """Whether a Python file defines `name`: a word, ``Class.member``, or a test at any depth."""
    first, *rest = name.split(".")
    body: list[ast.stmt] = tree(path).body
    for part in (first, *rest):
        found = [node for node in body if part in _defined(node)]
        if not found:
            inner = (node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef))
            return not rest and any(node.name == name for node in inner)
        body = getattr(found[0], "body", [])
    return True


def _defined(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return {target.id for target in targets if isinstance(target, ast.Name)}
    return {getattr(node, "name", "")}


@cache
def _files() -> tuple[Path, ...]:
    folders = ("gkdbench", "kernels", "suites", "tests", "docs", "results")
    skip = ("__pycache__", ".pytest_cache")
    inside = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
    return tuple(path for path in inside if not any(part in path.parts for part in skip))


def _path_exists(span: str, folder: Path) -> bool:
    if re.search(r"[<>~*]|^gkdbench-runs/|(?:^|/)[A-Z]+(?:/|-|$)", span):  # a pattern, or what a run writes
        return True
    name = span.rstrip("/")
    if any((place / name).exists() for place in (folder, ROOT, ROOT / "docs", ROOT / "kernels")):
        return True
    return any(f"/{name}/" in f"{path}/" for path in _files())


def abbreviations(text: str) -> set[str]:
    """Words in capitals, outside code, links and addresses."""
    prose = _SPAN.sub(" ", without_code(text))
    prose = re.sub(r"\]\([^)]*\)", "] ", prose)
    prose = re.sub(r"^(?: {4}).*$", "", prose, flags=re.MULTILINE)  # indented blocks: formulas and commands
    return set(_ABBREVIATION.findall(prose))


def explained(text: str) -> set[str]:
    """Abbreviations that `text` itself explains: "words (ABC)", "ABC (words)", "ABC is", or a row of a table."""
    found = set(re.findall(r"[a-z][\w-]* \(([A-Z][A-Z0-9]+)s?\)", text))
    found |= set(re.findall(r"\b([A-Z][A-Z0-9]+)s?\s\([A-Za-z][\w-]+(?: [\w-]+)+", text))
    found |= set(re.findall(r"\b([A-Z][A-Z0-9]+) is [a-z]", text))
    found |= set(re.findall(r"(?:^|  )([A-Z][A-Z0-9]+) {2,}[a-z]", text, re.MULTILINE))
    return found | set(re.findall(r"^\| `?([\w-]+)`? \| ", text, re.MULTILINE))


def docstrings(path: Path) -> Iterator[str]:
    """Every docstring of a file, those of attributes included."""
    for node in ast.walk(tree(path)):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            text = getattr(statement, "value", None)
            if isinstance(statement, ast.Expr) and isinstance(text, ast.Constant) and isinstance(text.value, str):
                yield text.value


def flowing(path: Path) -> str:
    """A source as one line, its comments joined over line ends."""
    return re.sub(r"\s*\n\s*(?:#\s*)?", " ", path.read_text(encoding="utf-8"))


def names_with(code: Iterator[str]) -> CodeNames:
    """The names of the checkout and those that blocks of Python define."""
    from support.code_names import add_names

    names = CodeNames(**{key: value.copy() for key, value in vars(code_names()).items()})
    for block in code:
        add_names(names, ast.parse(block))
    return names
