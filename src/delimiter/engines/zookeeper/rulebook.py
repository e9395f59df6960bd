"""The rules as they are kept: one head that everybody's changes check, and 512 parts that hold what there is to know.

The head's version, as ZooKeeper counts it, is *the* version of the rules: every change of claims checks it, so that
none commits on rules that are not in force any more, whatever a process remembers. The parts are there so that the
rules may grow past what one node can hold; only those that changed are read again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from delimiter.engines.memory.rules import Rules
from delimiter.engines.memory.tree import Tree
from delimiter.engines.zookeeper.layout import (
    Layout,
    damaged,
    decode,
    digest,
    encode,
    is_written_so,
    part_of,
)
from delimiter.engines.zookeeper.multi import Multi
from delimiter.engines.zookeeper.session import Node, Session
from delimiter.errors import Conflict, StoreUnavailable
from delimiter.model import UNLIMITED, Resource, Scope

__all__ = ["Edition", "Rulebook", "is_limited"]

_ATTEMPTS: Final = 20
_NONE: Final = type(None)
#: What the fields of the head are.
_HEAD: Final[Mapping[str, tuple[type, ...]]] = {
    "version": (int,),
    "revision": (int,),
    "overbooking": (bool,),
    "closed": (str, _NONE),
    "parts": (dict,),
}


@dataclass(frozen=True, slots=True)
class _Part:
    revision: int
    version: int
    content: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Edition:
    """The rules at one moment; ``version`` is that of the head's node."""

    rules: Rules
    version: int
    head: dict[str, Any]
    parts: dict[str, _Part] = field(repr=False)

    @property
    def closed(self) -> str | None:
        """Who makes an edit just now, if anybody does."""
        return self.head["closed"]  # type: ignore[no-any-return]


def is_limited(rules: Rules, resource: str, scope: Scope) -> bool:
    """Whether a scope's whole usage must be known when something is claimed there."""
    key = (resource, scope)
    return rules.maximum(key) != UNLIMITED or rules.minimum(key) > 0


class Rulebook:
    """Reads the rules of one store, and writes them into a multi."""

    def __init__(self, session: Session, layout: Layout) -> None:
        self._session = session
        self._layout = layout
        self._known: Edition | None = None
        self._doubted = False

    def remembered(self) -> Edition:
        """As this process knows them; a change that rests on them must check their version."""
        return self.current() if self._known is None or self._doubted else self._known

    def doubt(self) -> None:
        """What is remembered has turned out to be old, or may be."""
        self._doubted = True

    def current(self) -> Edition:
        """As they are now, for this process's server."""
        for _ in range(_ATTEMPTS):
            head = self._session.read(self._layout.rules)
            if head is None:
                raise StoreUnavailable(
                    f"the store's nodes are gone: {self._layout.rules} is missing", retryable=False
                )
            edition = self._known  # other threads may put theirs there at any time, and not in order
            if edition is None or edition.version != head.version:
                edition = self._edition(head, edition)
                if edition is None:
                    continue
                self._known = edition
            self._doubted = False
            return edition
        raise Conflict("the rules are edited all the time")

    def check(self, multi: Multi, edition: Edition) -> None:
        """What is in the multi happens only while these rules are in force."""
        multi.check(self._layout.rules, edition.version)

    def close(self, multi: Multi, edition: Edition, token: str) -> None:
        """From now on nobody changes a claim, until the editor opens the store again."""
        multi.set(self._layout.rules, encode({**edition.head, "closed": token}), edition.version)

    def open(self, multi: Multi, edition: Edition) -> None:
        """As it was before."""
        multi.set(self._layout.rules, encode({**edition.head, "closed": None}), edition.version)

    def write(self, multi: Multi, edition: Edition, rules: Rules) -> None:
        """These rules are in force, and the store is open."""
        revision = int(edition.head["revision"]) + 1
        parts = dict(edition.head["parts"])
        for name, content in sorted(_contents(rules, _changed_parts(edition.rules, rules)).items()):
            parts[name] = revision
            data = encode({"revision": revision, **content})
            known = edition.parts.get(name)
            if known is None:
                multi.create(self._layout.part(name), data)
            else:
                multi.set(self._layout.part(name), data, known.version)
        head = {
            "version": rules.version,
            "revision": revision,
            "overbooking": rules.overbooking,
            "closed": None,
            "parts": parts,
        }
        multi.set(self._layout.rules, encode(head), edition.version)

    def _edition(self, node: Node, before: Edition | None) -> Edition | None:
        """``None``: it was edited while its parts were read."""
        head = decode(node.data, self._layout.rules)
        if not is_written_so(head, _HEAD):
            raise damaged(self._layout.rules)
        known = before.parts if before is not None else {}
        revisions: dict[str, int] = head["parts"]
        parts = {
            name: part
            for name, part in known.items()
            if name in revisions and part.revision == revisions[name]
        }
        paths = {self._layout.part(name): name for name in revisions if name not in parts}
        for path, part in self._session.read_all(paths).items():
            if part is None:
                return None
            content = decode(part.data, path)
            if content.get("revision") != revisions[paths[path]]:
                return None
            parts[paths[path]] = _Part(content["revision"], part.version, content)
        try:
            return Edition(_rules(head, parts), node.version, head, parts)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise damaged(self._layout.rules) from error


def _rules(head: dict[str, Any], parts: dict[str, _Part]) -> Rules:
    rules = Rules(overbooking=bool(head["overbooking"]), version=int(head["version"]))
    parents: dict[str, str | None] = {}
    for part in parts.values():
        for values in part.content["definitions"]:
            rules.definitions[values["name"]] = Resource(**values)
        for resource, kind, name, maximum, minimum in part.content["own"]:
            rules.own[resource, Scope(kind, name)] = (maximum, minimum)
        parents.update(part.content["parents"])
        for kind, name, as_of in part.content["adopted"]:
            rules.adopted[name if kind is None else Scope(kind, name)] = as_of
    rules.tree = Tree(parents)
    return rules


def _contents(rules: Rules, names: Collection[str]) -> dict[str, dict[str, list[Any]]]:
    """What these parts hold."""
    found: dict[str, dict[str, list[Any]]] = {
        name: {"definitions": [], "own": [], "parents": [], "adopted": []} for name in names
    }
    for resource, definition in rules.definitions.items():
        if (part := found.get(_of_resource(resource))) is not None:
            part["definitions"].append(asdict(definition))
    for (resource, scope), values in rules.own.items():
        if (part := found.get(_of_scope(scope))) is not None:
            part["own"].append([resource, *scope, *values])
    for project, parent in rules.tree.parents.items():
        if (part := found.get(_of_project(project))) is not None:
            part["parents"].append([project, parent])
    for subject, as_of in rules.adopted.items():
        if (part := found.get(_of_subject(subject))) is not None:
            part["adopted"].append([*(subject if isinstance(subject, Scope) else (None, subject)), as_of])
    return found


def _changed_parts(before: Rules, after: Rules) -> set[str]:
    return {
        *map(_of_resource, _changed(before.definitions, after.definitions)),
        *(_of_scope(scope) for _, scope in _changed(before.own, after.own)),
        *map(_of_project, _changed(before.tree.parents, after.tree.parents)),
        *map(_of_subject, _changed(before.adopted, after.adopted)),
    }


def _changed(before: dict[Any, Any], after: dict[Any, Any]) -> Iterator[Any]:
    missing = object()
    for key in before.keys() | after.keys():
        if before.get(key, missing) != after.get(key, missing):
            yield key


def _of_resource(name: str) -> str:
    return part_of(digest("resource", name))


def _of_scope(scope: Scope) -> str:
    return part_of(digest(scope.kind, scope.name))


def _of_project(name: str) -> str:
    return part_of(digest("project", name))


def _of_subject(subject: Scope | str) -> str:
    return _of_scope(subject) if isinstance(subject, Scope) else _of_project(subject)
