"""HTML as values: whatever is not made here is escaped."""

from __future__ import annotations

from html import escape

from gkdbench.printable import printable


class Markup(str):
    """A string that is HTML already."""

    __slots__ = ()


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """One element; text children are escaped, lists are entered, None is dropped.

    Attribute names lose one trailing underscore (``class_``) and write "-" for "_"; an attribute of None is left out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(printable(str(value)), quote=True)}"'
        for key, value in attributes.items()
        if value is not None
    )
    inner = join(*children)
    return Markup(f"<{name}{written}>{inner}</{name}>")


def join(*children: object) -> Markup:
    """Children one after another, escaped as in `tag`."""
    parts = []
    for child in children:
        if isinstance(child, Markup):
            parts.append(str(child))
        elif isinstance(child, list | tuple):
            parts.append(str(join(*child)))
        elif child is not None:
            parts.append(escape(printable(str(child)), quote=False))
    return Markup("".join(parts))
