"""Texts of others, made safe for a terminal, a page and a file."""

from __future__ import annotations

_BIDI = {0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
_ESCAPES = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *_BIDI)
    if code not in (0x09, 0x0A)
}


def printable(text: str) -> str:
    """`text` with control characters (but tab and line feed) and changes of direction written out as ``\\x1b``.

    A terminal obeys them: they can hide text, move the cursor or change the title. Lengths of other texts stay.
    """
    return text.translate(_ESCAPES)


def said(error: BaseException) -> str:
    """``KeyError: 'x'``: kind and text of `error`, whatever its ``__str__`` does, in characters that UTF-8 has."""
    try:
        text = str(error)
    except Exception as other:
        text = f"(no text: its __str__ raises {type(other).__name__})"
    return encodable(f"{type(error).__name__}: {text}")


def encodable(text: str) -> str:
    r"""`text` with lone surrogates (of file names that are not UTF-8) written out as ``\udcff``."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


_JSON_ESCAPES = {code: f"\\u{code:04x}" for code in _ESCAPES}


def printable_json(text: str) -> str:
    """A JSON text with the same characters as JSON's own escapes: the value that is read from it stays.

    `json.dumps` escapes those below 0x20 itself; the others are harmless to a reader of JSON, not to a terminal.
    """
    return text.translate(_JSON_ESCAPES)
