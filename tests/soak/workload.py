"""What a caller asks next: drawn, but leaning towards limits that are nearly reached."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from soak.model import external_id_of
from soak.world import LIMITS, MOVING, PARENTS, PROJECTS, RACED, SKEW, TRACKED, USERS, resources

#: A verb, its arguments, and the operation that it repeats if that was in doubt.
Asked: TypeAlias = tuple[str, dict[str, Any], str | None]

#: How often each verb is drawn.
WEIGHTS: Final[dict[str, int]] = {
    "claim": 26, "reserve": 14, "claim_all": 8, "provision": 9, "renew": 4, "resize": 8, "transfer": 5,
    "release": 5, "check": 4, "usage": 5, "get": 2, "replay": 4, "other_contents": 2, "foreign": 4, "expire": 1,
}  # fmt: skip
IN_TRANSACTIONS: Final[dict[str, int]] = {"transaction": 8, "guard": 9, "remove_row": 4}

#: The share of refusals that callers lean to: above it they give back, below it they take.
_LEAST_REFUSED, _MOST_REFUSED = 0.30, 0.38

#: Seconds that reservations live: some run out while others work on, some outlive the run.
_SPANS: Final = (0.2, 0.5, 1.0, 2.0, 600.0, 600.0)

#: Claims of one family: with more there are too many orders to look at.
_MOST_CHILDREN: Final = 4


class Asking(ABC):
    """Draws calls, and asks again what was in doubt or met another transaction."""

    #: Seconds between two calls.
    pause = 0.0
    #: It has been told to stop.
    stopping = False

    def __init__(self, seed: str) -> None:
        self._dice = random.Random(seed)
        self._again: deque[Asked] = deque()

    @property
    def is_done(self) -> bool:
        """Whether it may end when it is told to stop: nothing is left in doubt."""
        return not self._again

    def repeat(self, asked: Asked) -> None:
        self._again.append(asked)

    def inherit(self, claim: Mapping[str, Any]) -> None:  # noqa: B027 - who asks for no claims may forget it
        """A claim of one who was killed is this one's from now on."""

    def next(self) -> Asked:
        return self._again.popleft() if self._again else self.draw()

    @abstractmethod
    def draw(self) -> Asked:
        """What is asked next where nothing is asked again."""

    def learn(self, asked: Asked, key: str, answer: Mapping[str, Any]) -> bool:
        """Whether the question is settled; else it is asked again."""
        verb, args, repeats = asked
        if not answer.get("in_doubt") and answer.get("error") not in ("Conflict", "StoreUnavailable"):
            return True
        if is_repeated(verb, args):
            self._again.append((verb, args, key if answer.get("in_doubt") else repeats))
        return False


def is_repeated(verb: str, args: Mapping[str, Any]) -> bool:
    """What has an id of the caller's or sets a value. (A counted row has none: the end shows whether it is there.)"""
    guarded = any(step["verb"] in ("guard", "remove_row") for step in args.get("steps", ()))
    return verb not in ("check", "usage", "get", "expire") and not guarded


class Caller(Asking):
    """One thread's memory of what it holds, and its dice."""

    def __init__(self, name: str, seed: str, *, transactions: bool, others: list[str]) -> None:
        super().__init__(seed)
        self._name = name
        self._weights = {**WEIGHTS, **(IN_TRANSACTIONS if transactions else {})}
        self._others = others
        self._numbers = 0
        self._live: list[str] = []
        self._reserved: list[str] = []
        self._children: dict[str, int] = {}
        self._rows: list[str] = []
        self._past: deque[tuple[str, dict[str, Any]]] = deque(maxlen=20)
        self._refused: deque[bool] = deque(maxlen=30)

    def draw(self) -> Asked:
        share = self._share()
        if share > _MOST_REFUSED and self._live and self._dice.random() < 0.6:
            return self._release()
        if share < _LEAST_REFUSED and self._dice.random() < 0.6:
            return self._claim()
        verb = self._dice.choices(list(self._weights), list(self._weights.values()))[0]
        return getattr(self, f"_{verb}")()  # type: ignore[no-any-return]

    def learn(self, asked: Asked, key: str, answer: Mapping[str, Any]) -> bool:
        """Remember what an answer means for the next calls, too."""
        if not super().learn(asked, key, answer):
            return False
        verb, args, _ = asked
        error = answer.get("error")
        if verb in ("claim", "reserve", "claim_all"):
            self._refused.append(error == "OverLimit")
            if error is None:
                self._past.append((verb, args))
        if error in ("ClaimExpired", "ClaimReleased") or (verb == "release" and error is None):
            self._forget(args.get("id", ""))
        if error is None and isinstance(answer.get("ok"), list):
            for claim in answer["ok"]:
                if isinstance(claim, dict):
                    self._keep(claim)
        if verb == "transaction" and answer.get("end") == "committed":
            self._keep_transaction(args)
        return True

    def _share(self) -> float:
        return sum(self._refused) / max(1, len(self._refused))

    def inherit(self, claim: Mapping[str, Any]) -> None:
        (self._reserved if claim["state"] == "reserved" else self._live).append(claim["id"])

    def _keep(self, claim: Mapping[str, Any]) -> None:
        kept, other = (
            (self._reserved, self._live) if claim["state"] == "reserved" else (self._live, self._reserved)
        )
        other_had_it = claim["id"] in other
        if other_had_it:
            other.remove(claim["id"])
        was_mine = claim["id"].startswith(f"{self._name}.") or other_had_it
        if claim["id"] not in kept and was_mine:
            kept.append(claim["id"])

    def _keep_transaction(self, args: Mapping[str, Any]) -> None:
        for step in args["steps"]:
            if step["verb"] == "guard":
                self._rows.append(step["args"]["id"])
            elif step["verb"] == "release":
                self._forget(step["args"]["id"])
            elif step["verb"] == "claim":
                self._live.append(step["args"]["requests"][0]["id"])

    def _forget(self, id: str) -> None:
        for kept in (self._live, self._reserved):
            if id in kept:
                kept.remove(id)

    # -- what is drawn ----------------------------------------------------------------------------------------------

    def _id(self, kind: str = "") -> str:
        self._numbers += 1
        return f"{self._name}.{self._numbers}{kind}"

    def _own(self) -> str | None:
        kept = self._live + self._reserved
        return self._dice.choice(kept) if kept else None

    def _owner(self) -> dict[str, str]:
        project = self._dice.choices(PROJECTS, SKEW)[0]
        user = self._dice.choice(USERS)
        drawn = self._dice.random()
        if drawn < 0.15:
            return {"project": project}
        return {"user": user} if drawn < 0.25 else {"project": project, "user": user}

    def _resources(self) -> dict[str, int]:
        names = self._dice.sample(TRACKED, self._dice.choice((1, 1, 2)))
        # Hungry until somebody says no: limits that nobody reaches show nothing.
        amounts = (1, 1, 2, 3) if self._share() > _LEAST_REFUSED else (3, 4, 5)
        return {name: self._dice.choice(amounts) for name in names}

    def _request(self, kind: str = "") -> dict[str, Any]:
        id = self._id(kind)
        request: dict[str, Any] = {"resources": self._resources(), "id": id, **self._owner()}
        if self._dice.random() < 0.2:
            request["external_id"] = external_id_of(id)
        if self._dice.random() < 0.15 and self._live:
            parent = self._dice.choice(self._live)
            if self._children.get(parent, 0) < _MOST_CHILDREN:
                self._children[parent] = self._children.get(parent, 0) + 1
                self._children[id] = _MOST_CHILDREN  # no grandchildren
                request["parent"] = parent
        return request

    def _claim(self) -> Asked:
        return "claim", {"requests": [self._request()]}, None

    def _reserve(self) -> Asked:
        return "reserve", {"requests": [{**self._request(), "expires_in": self._dice.choice(_SPANS)}]}, None

    def _claim_all(self) -> Asked:
        first = self._request()
        below: dict[str, Any] = {"parent": first["id"]} if self._dice.random() < 0.8 else {}
        span = {"expires_in": self._dice.choice(_SPANS)} if self._dice.random() < 0.4 else {}
        owner = {name: first[name] for name in ("project", "user") if name in first}
        others = [
            {"resources": self._resources(), "id": self._id(), **owner, **below, **span}
            for _ in range(self._dice.choice((1, 2, 3)))
        ]
        for one in (first, *others):
            self._children[one["id"]] = _MOST_CHILDREN
        return "claim_all", {"requests": [{**first, **span}, *others]}, None

    def _provision(self) -> Asked:
        if not self._reserved:
            return self._reserve()
        id = self._dice.choice(self._reserved)
        named = {"external_id": external_id_of(id)} if self._dice.random() < 0.3 else {}
        return "provision", {"id": id, **named}, None

    def _renew(self) -> Asked:
        if not self._reserved:
            return self._reserve()
        id = self._dice.choice(self._reserved)
        return "renew", {"id": id, "expires_in": self._dice.choice(_SPANS)}, None

    def _resize(self) -> Asked:
        id = self._own()
        return ("resize", {"id": id, "resources": self._resources()}, None) if id else self._claim()

    def _transfer(self) -> Asked:
        id = self._own()
        return ("transfer", {"id": id, **self._owner()}, None) if id else self._claim()

    def _release(self) -> Asked:
        id = self._own()
        return ("release", {"id": id}, None) if id else self._claim()

    def _get(self) -> Asked:
        id = self._own()
        return ("get", {"id": id}, None) if id else self._claim()

    def _check(self) -> Asked:
        return "check", {"resources": self._resources(), **self._owner()}, None

    def _usage(self) -> Asked:
        scope = self._dice.choice(
            ["total", *(f"project:{one}" for one in PROJECTS), *(f"user:{one}" for one in USERS)]
        )
        return "usage", {"scope": scope}, None

    def _expire(self) -> Asked:
        return "expire", {}, None

    def _replay(self) -> Asked:
        if not self._past:
            return self._claim()
        verb, args = self._dice.choice(self._past)
        return verb, args, None

    def _other_contents(self) -> Asked:
        """An id that is known, with other contents: a conflict, whether there is room or not."""
        if not self._past:
            return self._claim()
        verb, args = self._dice.choice(self._past)
        first = args["requests"][0]
        changed = {**first, "resources": {name: amount + 1 for name, amount in first["resources"].items()}}
        return verb, {"requests": [changed, *args["requests"][1:]]}, None

    def _foreign(self) -> Asked:
        """What somebody else has made, about now: two of us may end it in different ways."""
        if not self._others:
            return self._claim()
        number = max(1, self._numbers + self._dice.randint(-12, 3))
        id = f"{self._dice.choice(self._others)}.{number}"
        verb = self._dice.choice(("release", "provision", "provision", "get"))
        return verb, {"id": id}, None

    def _transaction(self) -> Asked:
        """A claim or two beside rows of the service's own, sometimes with a release, sometimes rolled back."""
        steps = [
            {"verb": "claim", "args": {"requests": [self._request("t")]}}
            for _ in range(self._dice.choice((1, 1, 2)))
        ]
        id = self._dice.choice(self._live) if self._live and self._dice.random() < 0.4 else None
        if id is not None:
            verb = self._dice.choice(("release", "resize"))
            more = {"resources": self._resources()} if verb == "resize" else {}
            steps.append({"verb": verb, "args": {"id": id, **more}})
        end = "rollback" if self._dice.random() < 0.25 else "commit"
        return "transaction", {"steps": steps, "end": end}, None

    def _guard(self) -> Asked:
        owner = self._owner()
        project = owner.get("project", PROJECTS[-2])
        row = {"id": self._id("r"), "project": project, "user": owner.get("user")}
        step = {"verb": "guard", "args": {**row, "optimistic": self._dice.random() < 0.25}}
        return (
            "transaction",
            {"steps": [step], "end": "rollback" if self._dice.random() < 0.1 else "commit"},
            None,
        )

    def _remove_row(self) -> Asked:
        if not self._rows:
            return self._guard()
        row = self._rows.pop(self._dice.randrange(len(self._rows)))
        return "transaction", {"steps": [{"verb": "remove_row", "args": {"id": row}}], "end": "commit"}, None


class Operator(Asking):
    """Sets limits up and down, moves projects, looks."""

    pause = 0.15

    def __init__(self, seed: str, *, counting: bool) -> None:
        super().__init__(seed)
        known = resources(counting=counting)
        self._limits = {key: values for key, values in LIMITS.items() if key[0] in known}

    def draw(self) -> Asked:
        drawn = self._dice.random()
        if drawn < 0.5:
            resource, scope = self._dice.choice(list(self._limits))
            return (
                "update_limits",
                {
                    "resource": resource,
                    "scope": scope,
                    "max": self._dice.choice(self._limits[resource, scope]),
                },
                None,
            )
        if drawn < 0.75:
            return (
                "move_project",
                {"id": self._dice.choice(MOVING), "parent": self._dice.choice(PARENTS)},
                None,
            )
        return "usage", {"scope": "total" if drawn < 0.85 else f"project:{self._dice.choice(PROJECTS)}"}, None


class Sweeper(Asking):
    """Sweeps again and again, beside others who do."""

    pause = 0.04

    def draw(self) -> Asked:
        return "expire", {}, None


class Racer(Asking):
    """Claims one at a time of what all claim of, and gives one back when it is told that nothing is left.

    At the end nobody gives back and everybody claims until nothing is left: so the limit is reached exactly.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._name = name
        self._numbers = 0
        self._live: list[str] = []
        self._full = False

    @property
    def is_done(self) -> bool:
        return super().is_done and self._full

    def draw(self) -> Asked:
        if self._full and self._live and not self.stopping:
            return "release", {"id": self._live.pop()}, None
        self._numbers += 1
        request = {
            "resources": {RACED: 1},
            "id": f"{self._name}.{self._numbers}",
            "user": self._dice.choice(USERS),
        }
        return "claim", {"requests": [request]}, None

    def learn(self, asked: Asked, key: str, answer: Mapping[str, Any]) -> bool:
        self._full = answer.get("error") == "OverLimit"
        if not super().learn(asked, key, answer):
            return False
        if asked[0] == "claim" and "ok" in answer:
            self._live.append(answer["ok"][0]["id"])
        return True

    def inherit(self, claim: Mapping[str, Any]) -> None:
        self._live.append(claim["id"])
