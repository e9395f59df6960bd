"""Text for a terminal: whatever a name or a file holds, it cannot move the cursor or turn a line round."""

from __future__ import annotations

import unicodedata
from typing import Any, Final, Self, cast

from rich.style import StyleType
from rich.text import Text as _Text

__all__ = ["Text", "harmless"]

#: Beside control characters and line separators: what makes a terminal write from right to left (or back).
_TURNING: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_DANGEROUS: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})


def harmless(text: str) -> str:
    r"""The text with everything spelt out that a terminal would act on; line breaks stay.

    >>> harmless("evil\x1b[2J\u202e.name")
    'evil\\x1b[2J\\u202e.name'
    """
    if text.isprintable():
        return text
    return "".join(_spelt(character) if _acts(character) else character for character in text)


def _acts(character: str) -> bool:
    if character == "\n":
        return False
    return character in _TURNING or unicodedata.category(character) in _DANGEROUS


def _spelt(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class Text(_Text):
    """Rich's text, made harmless. All that is printed for people is put together from it."""

    __slots__ = ()

    def __init__(self, text: str = "", style: StyleType = "", **options: Any) -> None:
        super().__init__(harmless(text), style, **options)

    def append(self, text: _Text | str, style: StyleType | None = None) -> Self:
        super().append(harmless(text) if isinstance(text, str) else text, cast("Any", style))
        return self

    @classmethod
    def assemble(cls, *parts: Any, **options: Any) -> Self:
        return cast("Self", super().assemble(*parts, **options))
