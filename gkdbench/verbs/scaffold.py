"""``new method``: a method that works, its settings and its test, in this checkout or as a package of its own."""

from __future__ import annotations

import argparse
import importlib.resources
import keyword
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from gkdbench.errors import UserError
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
description = "{name}, a method for gkdbench"
requires-python = ">=3.11"
dependencies = ["gkdbench"]

[project.entry-points."gkdbench.methods"]
{name} = "{package}.{name}:{cls}"

[tool.hatch.build.targets.wheel]
packages = ["{package}"]
"""


def new_method(args: argparse.Namespace) -> int:
    """``gkdbench new method NAME [--into DIR]``: write the files, print what to do next."""
    name = checked_name(args.name)
    into = Path(args.into) if args.into else None
    written = write(in_package(name, into) if into else in_checkout(name, checkout(), args.family))
    for path in written:
        say(f"wrote {path}")
    test = written[-1]
    if not into:
        measure(name, checkout())
    else:
        say(f"next: pip install --no-build-isolation -e {into}")
    say(f"next: edit `fit` in {written[0]}")
    say(f"then: python -m pytest {test}; gkdbench run smoke --only method={name}")
    return 0


def checked_name(name: str) -> str:
    """`name` when a method may have it.

    Raises:
        UserError: not lower case joined by underscores, a word of Python, too long, or taken.
    """
    from gkdbench.training.registry import METHODS

    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name) or len(name) > LONGEST:
        raise UserError(
            f"a method's name: expected lower case, digits after a letter, words joined by underscores, no keyword of "
            f"Python, at most {LONGEST} characters, such as soft_mlp, got {name!r}"
        )
    if name in METHODS.names():
        entry = METHODS.entry(name)
        raise UserError(
            f"expected a new name; there is a method {name!r} already, {entry.target} of {entry.owner}; choose another"
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


def in_package(name: str, folder: Path) -> dict[Path, str]:
    """The files of a distribution in `folder` that brings method `name` by an entry point; its test last."""
    package = f"gkdbench_{name}"
    facts = {"name": name, "cls": class_name(name), "package": package, "distribution": package.replace("_", "-")}
    return {
        folder / package / f"{name}.py": _template(f"{NAME}.py", name),
        folder / package / "__init__.py": f'"""{name}, a method for gkdbench."""\n',
        folder / package / "configs" / f"{name}.toml": _template(f"{NAME}.toml", name),
        folder / "pyproject.toml": PROJECT.format(**facts),
        folder / "tests" / f"test_method_{name}.py": TEST.format(name=name, cls=class_name(name)),
    }


def write(files: Mapping[Path, str]) -> list[Path]:
    """Write new files; none when one of them is there already.

    Raises:
        UserError: a file exists, or a folder refuses.
    """
    there = [str(path) for path in files if path.exists()]
    if there:
        raise UserError(f"{', '.join(there)} exists already and is not written over; choose another name or folder")
    for path, text in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}; choose a folder that you may write to") from None
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
