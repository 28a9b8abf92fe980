"""Texts from outside on a screen or in a log: control and formatting characters are written out, never obeyed."""

from __future__ import annotations

import unicodedata

UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories: control, formatting (also those that turn text around), surrogates, line and paragraph ends."""


def printable(value: object) -> str:
    """The text of a value with such characters written out as escapes; nothing for None."""
    text = "" if value is None else str(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in UNSAFE:
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def printable_json(text: str) -> str:
    """A JSON document whose strings hold them as JSON's own escapes; what is between its strings stays."""
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(character if character == "\n" else _escaped_in_json(character) for character in text)


def _escaped_in_json(character: str) -> str:
    if unicodedata.category(character) not in UNSAFE:
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
