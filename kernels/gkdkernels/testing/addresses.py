"""Whether a triton kernel computes its addresses in 64 bits, read from its intermediate code.

A matrix of more than 2^31 elements has rows that a 32-bit product ``row * width`` cannot reach: it wraps, silently, and
only on graphs that no test machine holds. What wraps can be seen without them: a 32-bit product, of the program's
number or of a number from memory, that ends in an address.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_NAME = re.compile(r"%[\w.]+(?:#\d+)?")
_ROOTS = ("tt.get_program_id x", "tt.load")  # of unbounded size; the other axes of a grid count tiles of the width


@dataclass(frozen=True, slots=True)
class _Value:
    """An operation: its name, operands, and whether its result has at most 32 bits."""

    operation: str
    operands: tuple[str, ...]
    narrow: bool


def narrow_addresses(code: str) -> list[str]:
    """The offsets of addresses, by name, that are made of a 32-bit product of unbounded numbers.

    Args:
        code: of triton's dialect (TTIR), after inlining.
    """
    values, addresses = _parse(code)
    unbounded: dict[str, bool] = {}
    return [
        offset
        for offset in addresses
        if any(
            values[name].operation.startswith("arith.muli")
            and values[name].narrow
            and _unbounded(name, values, unbounded)
            for name in _behind(offset, values)
        )
    ]


def _parse(code: str) -> tuple[dict[str, _Value], list[str]]:
    values: dict[str, _Value] = {}
    addresses = []
    for line in code.splitlines():
        line = line.split(" loc(")[0]
        if "scf.for" in line:
            head = line.partition("scf.for")[2]
            bounds, _, carried = head.partition("iter_args")
            induction, *limits = _NAME.findall(bounds)
            values[induction] = _Value("scf.for", tuple(limits), line.rstrip().endswith("i32 {"))
            for name, initial in re.findall(r"(%[\w.]+) = (%[\w.#]+)", carried):
                values[name] = _Value("scf.for", (initial,), False)
            continue
        made = re.match(r"\s*(%[\w.]+)(?::\d+)? = \"?([\w.]+)\"?(.*)", line)
        if made is None:
            continue
        name, operation, rest = made.groups()
        operands = tuple(_NAME.findall(rest))
        if operation == "tt.get_program_id":
            operation = f"{operation} {rest.split()[0]}"
        types = rest.rpartition(" : ")[2]
        values[name] = _Value(operation, operands, "i64" not in types)
        if operation == "tt.addptr":
            addresses.append(operands[1])
    return values, addresses


def _behind(name: str, values: Mapping[str, _Value]) -> set[str]:
    """The values that an offset is computed from; what is read from memory ends the walk, and so does a wide one."""
    found: set[str] = set()
    todo = [name]
    while todo:
        here = todo.pop().split("#")[0]
        if here in found or here not in values or values[here].operation == "tt.load":
            continue
        found.add(here)
        todo += values[here].operands
    return found


def _unbounded(name: str, values: Mapping[str, _Value], known: dict[str, bool]) -> bool:
    """Whether a value follows from the program's number or from memory; a remainder is bounded."""
    name = name.split("#")[0]
    if name not in known:
        value = values.get(name)
        known[name] = False  # a cycle adds nothing
        if value is not None and not value.operation.startswith("arith.rem"):
            root = value.operation.startswith(_ROOTS)
            known[name] = root or any(_unbounded(one, values, known) for one in value.operands)
    return known[name]
