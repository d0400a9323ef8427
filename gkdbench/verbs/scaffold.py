"""``new``: a method or data set that works, and its test, in a package of your own; a method also in this checkout."""

from __future__ import annotations

import argparse
import importlib.resources
import keyword
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gkdbench.errors import UserError
from gkdbench.registry import Registry
from gkdbench.text_files import read_text, read_toml, write_text
from gkdbench.verbs.printing import say

NAME, CLASS = "my_method", "MyMethod"
"""What the template calls itself."""
LONGEST = 40
GOLDEN = "tests/methods/golden.py"

TEST = """from gkdbench.testing import MethodCase


class Test{cls}(MethodCase):
    name = "{name}"
"""

PROJECT = """[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{distribution}"
version = "0.1.0"
description = "{name}, a {kind} for gkdbench"
requires-python = ">=3.11"
dependencies = ["gkdbench"]

[project.entry-points."gkdbench.{kind}s"]
{entry}

[tool.hatch.build.targets.wheel]
packages = ["{package}"]
"""


DATASET = '''"""{name}: what the graph is, and where it comes from."""

from __future__ import annotations

import numpy as np

from gkdbench import Task


def {name}() -> Task:
    """A ring of 300 items in three classes: put your own arrays here."""
    rng = np.random.default_rng(0)
    labels = np.arange(300) // 100  # [N] classes from 0
    items = np.arange(300)
    pairs = np.stack([items, (items + 1) % 300])
    return Task.from_arrays(
        "{name}",
        edge_index=np.concatenate([pairs, pairs[::-1]], axis=1),  # [2, E], both directions
        features=np.eye(3)[labels] + rng.normal(0, 1.0, (300, 3)),  # [N, D]
        labels=labels,
        # splits={{"train": [...], "val": [...], "test": [...]}} adds the split "own"; without them it is drawn
    )
'''

DATASET_TEST = """from {package}.{name} import {name}


def test_{name}_can_be_split() -> None:
    task = {name}()
    assert task.num_nodes == len(task.labels)
    assert int(task.labels.max()) < task.num_classes
"""


def new(args: argparse.Namespace) -> int:
    """``gkdbench new method|dataset NAME [--into DIR]``: write the files, print what to do next."""
    return new_method(args) if args.kind == "method" else new_dataset(args)


def new_dataset(args: argparse.Namespace) -> int:
    """Write a data set into a package: a function that returns a Task, its entry point, its test."""
    if not args.into:
        raise UserError("new dataset: expected a package to write into, got none; try --into FOLDER")
    name, into = checked_name(args.name, "data set"), Path(args.into)
    package = package_in(into) or f"gkdbench_{name}"
    files = {
        into / package / f"{name}.py": DATASET.format(name=name),
        into / "tests" / f"test_dataset_{name}.py": DATASET_TEST.format(name=name, package=package),
    }
    written = write_package(into, package, "dataset", name, name, files)
    for path in written:
        say(f"wrote {path}")
    say(f"next: put your arrays into {written[0]}")
    say(f"then: pip install -e {into}; gkdbench show {name}; gkdbench run --method mlp --dataset {name}")
    return 0


def new_method(args: argparse.Namespace) -> int:
    """Write a method: into this checkout, or into a package."""
    name = checked_name(args.name)
    into = Path(args.into) if args.into else None
    if into:
        package = package_in(into) or f"gkdbench_{name}"
        written = write_package(into, package, "method", name, class_name(name), in_package(name, into, package))
    else:
        written = write(in_checkout(name, checkout(), args.family))
    for path in written:
        say(f"wrote {path}")
    test = written[-1]
    if not into:
        measure(name, checkout())
    else:
        say(f"next: pip install -e {into}")
    say(f"next: edit `fit` in {written[0]}")
    say(f"then: python -m pytest {test}; gkdbench run smoke --only method={name}")
    return 0


def checked_name(name: str, kind: str = "method") -> str:
    """`name` when a method, or a data set, may have it.

    Raises:
        UserError: not lower case joined by underscores, a word of Python, too long, or taken.
    """
    from gkdbench.data.datasets import DATASETS
    from gkdbench.training.registry import METHODS

    registry: Registry[Any] = METHODS if kind == "method" else DATASETS
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name) or len(name) > LONGEST:
        raise UserError(
            f"a {kind}'s name: expected lower case, digits after a letter, words joined by underscores, no keyword of "
            f"Python, at most {LONGEST} characters, such as soft_mlp, got {name!r}"
        )
    if name in registry.names():
        entry = registry.entry(name)
        raise UserError(
            f"expected a new name; there is a {kind} {name!r} already, {entry.target} of {entry.owner}; choose another"
        )
    return name


def checkout() -> Path:
    """Root of the checkout that this package runs from.

    Raises:
        UserError: it is installed, and has no tests to write into.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / "tests" / "methods").is_dir():
        raise UserError(
            "gkdbench is installed here, not checked out; write a package of your own with --into FOLDER, "
            "or run this in a clone with an editable install"
        )
    return root


def in_checkout(name: str, root: Path, family: str = "gnn_to_mlp") -> dict[Path, str]:
    """The files of method `name` of `family` in the checkout at `root`; the method's own first, its test last."""
    folder = root / "gkdbench" / "methods" / family
    return {
        folder / f"{name}.py": _template(f"{NAME}.py", name),
        folder / "configs" / f"{name}.toml": _template(f"{NAME}.toml", name),
        root / "tests" / "methods" / "cases" / f"test_method_{name}.py": TEST.format(name=name, cls=class_name(name)),
    }


def in_package(name: str, folder: Path, package: str) -> dict[Path, str]:
    """The files of method `name` in the distribution in `folder`; its test last."""
    return {
        folder / package / f"{name}.py": _template(f"{NAME}.py", name),
        folder / package / "configs" / f"{name}.toml": _template(f"{NAME}.toml", name),
        folder / "tests" / f"test_method_{name}.py": TEST.format(name=name, cls=class_name(name)),
    }


def package_in(folder: Path) -> str | None:
    """The import package of a distribution that this verb began in `folder`; None where there is none yet.

    Raises:
        UserError: its pyproject.toml does not say where the package is.
    """
    project = folder / "pyproject.toml"
    if not project.is_file():
        return None
    tables = read_toml(project)
    targets = tables.get("tool", {}).get("hatch", {}).get("build", {}).get("targets", {})
    packages = targets.get("wheel", {}).get("packages", [])
    if len(packages) != 1:
        raise UserError(
            f"{project}: expected one package, [tool.hatch.build.targets.wheel] packages = [NAME], got "
            f"{len(packages)}; choose another folder, or add the files and their entry point by hand"
        )
    return str(packages[0])


def write_package(
    folder: Path, package: str, kind: str, name: str, attribute: str, files: Mapping[Path, str]
) -> list[Path]:
    """Write `files` into the distribution in `folder`, and the entry point that makes `name` known; begin it if needed.

    Returns:
        All files that were written; those given first, their last one last.
    """
    project, entry = folder / "pyproject.toml", f'{name} = "{package}.{name}:{attribute}"'
    if not project.is_file():
        distribution = package.replace("_", "-")
        text = PROJECT.format(name=name, kind=kind, package=package, distribution=distribution, entry=entry)
        *firsts, last = files
        begun = {folder / package / "__init__.py": f'"""{name}, a {kind} for gkdbench."""\n', project: text}
        return write({**{path: files[path] for path in firsts}, **begun, last: files[last]})
    written = write(files)
    text, head = read_text(project), f'[project.entry-points."gkdbench.{kind}s"]'
    added = text.replace(head, f"{head}\n{entry}", 1) if head in text else f"{text.rstrip()}\n\n{head}\n{entry}\n"
    write_text(project, added)
    say(f"changed {project}: the entry point of {name}; install the package again")
    return written


def write(files: Mapping[Path, str]) -> list[Path]:
    """Write new files; none when one of them is there already.

    Raises:
        UserError: a file exists, or a folder refuses.
    """
    there = [str(path) for path in files if path.exists()]
    if there:
        raise UserError(f"{', '.join(there)} exists already and is not written over; choose another name or folder")
    for path, text in files.items():
        write_text(path, text)
    return list(files)


def measure(name: str, root: Path) -> None:
    """Keep the first numbers of method `name`, which a test compares with later ones."""
    done = subprocess.run([sys.executable, str(root / GOLDEN), name], capture_output=True, text=True)
    if done.returncode == 0:
        say(f"measured its first numbers; again after each change of the step: python {GOLDEN} {name}")
    else:
        raise UserError(f"the files are written, and {GOLDEN} does not run: {done.stderr.strip().splitlines()[-1]}")


def class_name(name: str) -> str:
    """``soft_mlp`` -> ``SoftMlp``; ends in Method where the template means something else by the name."""
    camel = "".join(word.capitalize() for word in name.split("_"))
    used = re.search(rf"\b{camel}\b", _source(f"{NAME}.py")) or camel == "MethodCase"
    return f"{camel}Method" if used else camel


def _template(file: str, name: str) -> str:
    return _source(file).replace(NAME, name).replace(CLASS, class_name(name))


def _source(file: str) -> str:
    return (importlib.resources.files("gkdbench.verbs.template") / file).read_text(encoding="utf-8")
