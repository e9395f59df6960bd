"""What the checker reports."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Violation:
    """One broken promise.

    ``kind``: ``lost``, ``doubled``, ``altered``, ``over``, ``false refusal``, ``false admission``, ``two ends``,
    ``wrong answer``, ``rules``, ``drift``, ``stuck``, ``crash``, ``race``.
    """

    kind: str
    what: str
    history: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.kind}: {self.what}", *(f"    {line}" for line in self.history[:30])]
        return "\n".join(lines)
