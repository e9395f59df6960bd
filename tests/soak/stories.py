"""Histories made by hand, as the journals of clients and the look at the end would have them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from soak import world
from soak.history import History, operations

CORES = "compute.cores"
SECOND = 1_000_000_000


class Story:
    """A history as journals would have it. Times are seconds; the store's clock is the same."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.claims: dict[str, dict[str, Any]] = {}
        self._final: dict[str, Any] = {}
        self._numbers = 0

    def call(
        self,
        verb: str,
        args: dict[str, Any],
        answer: dict[str, Any] | None,
        at: float,
        took: float = 0.01,
        **more: Any,
    ) -> str:
        self._numbers += 1
        key = f"hand#{self._numbers}"
        self.lines.append({"t": int(at * SECOND), "o": key, "call": verb, "args": args, **more})
        if answer is not None:
            self.lines.append({"t": int((at + took) * SECOND), "o": key, "a": answer})
        return key

    def claim(self, id: str, amount: int, at: float, *, user: str = "john", took: float = 0.01) -> None:
        made = claim(id, amount, user)
        self.call("claim", {"requests": [asked(id, amount, user)]}, {"ok": [made]}, at, took)
        self.claims[id] = dict(made)

    def reserve(self, id: str, amount: int, at: float, span: float) -> None:
        made = {
            **claim(id, amount, "john"),
            "state": "reserved",
            "expires_at": int((at + 0.005 + span) * 1_000_000),
        }
        request = {**asked(id, amount, "john"), "expires_in": span}
        self.call("reserve", {"requests": [request]}, {"ok": [made]}, at)
        self.claims[id] = dict(made)

    def release(self, id: str, at: float) -> None:
        self.call("release", {"id": id}, {"ok": []}, at)
        self.claims[id]["state"] = "released"

    def refused(
        self, id: str, amount: int, at: float, scope: str, limit: int, used: int, took: float = 0.01
    ) -> None:
        violation = [CORES, scope, limit, used, amount, max(0, limit - used)]
        self.call(
            "claim",
            {"requests": [asked(id, amount)]},
            {"error": "OverLimit", "violations": [violation]},
            at,
            took,
        )

    def limit(self, scope: str, maximum: int, at: float) -> None:
        self.call("update_limits", {"resource": CORES, "scope": scope, "max": maximum}, {"ok": []}, at)
        self._final.setdefault("own", {})[CORES, scope] = maximum

    def ended(
        self, change: Callable[[dict[str, dict[str, Any]]], object] | None = None, **more: Any
    ) -> History:
        """``change``: what is wrong with the claims that are listed at the end."""
        claims = {id: dict(one) for id, one in self.claims.items()}
        if change is not None:
            change(claims)
        own = {**world.OWN, **self._final.get("own", {})}
        final = {
            "claims": list(claims.values()),
            "at": [100_000_000, 100_000_000],
            "projects": dict(world.TREE),
            "own_limits": [[name, scope, maximum] for (name, scope), maximum in own.items()],
            "usage": usage(claims),
            "drift": [],
            "locks": [],
            "healed_at": 90_000_000,
            **more,
        }
        return History(list(operations(self.lines)), final, {"timeout": 10, "tolerance_us": 1000})


def asked(id: str, amount: int, user: str = "john") -> dict[str, Any]:
    return {"resources": {CORES: amount}, "id": id, "user": user}


def claim(id: str, amount: int, user: str) -> dict[str, Any]:
    return {
        "id": id, "resources": {CORES: amount}, "project": None, "user": user, "parent": None,
        "state": "provisioned", "external_id": None, "expires_at": None,
    }  # fmt: skip


def usage(claims: dict[str, dict[str, Any]]) -> dict[str, Any]:
    live = [one for one in claims.values() if one["state"] in ("reserved", "provisioned")]
    total = sum(one["resources"][CORES] for one in live)
    johns = sum(one["resources"][CORES] for one in live if one["user"] == "john")
    names = world.resources(counting=True)
    return {
        "total": {name: [0, total if name == CORES else 0, 0] for name in names},
        "user:john": {name: [0, johns if name == CORES else 0, 0] for name in names},
    }
