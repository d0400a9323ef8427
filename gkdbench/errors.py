"""The one error that user input raises: what was expected, what was given, what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input from outside: a name, a value, a file.

    ``str(error)`` is one line or few, complete without a traceback: what was expected, what
    was given, what to do next. The command line prints it and exits with 2.
    """


class UnknownName(UserError):
    """A name that is not registered; the message lists the nearest names that are."""

    def __init__(self, kind: str, got: str, known: Iterable[str], hint: str = "") -> None:
        self.kind, self.got, self.known = kind, got, sorted(known)
        super().__init__(f"unknown {kind} {got!r}; {nearest(got, self.known)}{f' ({hint})' if hint else ''}")

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.kind, self.got, self.known))


def nearest(got: str, known: Iterable[str]) -> str:
    """``did you mean a, b?``, or the whole list when nothing is near."""
    names = sorted(known)
    near = difflib.get_close_matches(got, names, n=3, cutoff=0.5)
    if near:
        return "did you mean " + ", ".join(repr(n) for n in near) + "?"
    return "known: " + (", ".join(names) if names else "none")


def invalid(name: str, got: object, message: str) -> str:
    """``NAME: expected ..., got ...`` from pydantic's message of one wrong value ("Input should be ...")."""
    if message == "Field required":
        return f"{name}: expected a value, got none"
    if message == "Extra inputs are not permitted":
        return f"{name}: expected no such key, got {got!r:.100}"
    kind = message.removeprefix("Input should be ")
    if kind.startswith(("greater", "less")):
        kind = f"a value {kind}"
    expected = kind if kind != message else f"valid input ({message[0].lower()}{message[1:]})"
    return f"{name}: expected {expected}, got {got!r:.100}"
