"""The condition of a store: which server keeps it, how that is set up, and what of it is unsafe."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Condition", "Weakness"]


@dataclass(frozen=True, slots=True)
class Weakness:
    """Something unsafe about how a store is set up: where it is seen, what can happen, what to do."""

    setting: str
    danger: str
    remedy: str
    #: Claims cannot be made, or acknowledged ones can be lost, as it is now. Otherwise: only under what is told.
    severe: bool = True

    def __str__(self) -> str:
        return f"{self.setting}: {self.danger} {self.remedy}"


@dataclass(frozen=True, slots=True)
class Condition:
    """How a store is kept, in words, and what is unsafe about it; nothing where the engine knows of nothing."""

    kept: str = ""
    weaknesses: tuple[Weakness, ...] = ()
