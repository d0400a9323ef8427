"""One wrong line that a test has to notice; `mutations.py` plants it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec


@dataclass(frozen=True, slots=True)
class Fault:
    """One wrong line.

    Attributes:
        name: begins with the operator, or with the shared part, that it is in.
        file: in `gkdkernels`.
        right, wrong: the source, found once, and what it becomes.
        tests: files of this folder that have to notice; `only` narrows them (pytest's -k).
        often: part of the normal tests, one for each kind of fault; the others are planted by the full ones.
    """

    name: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]
    only: str = ""
    often: bool = False

    @property
    def needs(self) -> str:
        """A module without which nothing can notice; empty: none."""
        return "numba" if "numba" in self.file else ""

    @property
    def possible(self) -> bool:
        """Whether what it needs is installed."""
        return not self.needs or find_spec(self.needs) is not None
