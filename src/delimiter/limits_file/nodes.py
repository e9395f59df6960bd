"""A file's text as a tree whose every value knows where it stands, so that a complaint can point there.

YAML is read from its events and not by a constructor: nothing in the text can make an object, refer to another part of
it, or nest or grow beyond bounds. Nothing is thrown at the first mistake; they are gathered in :class:`Problems`.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import yaml
from yaml.resolver import Resolver

from delimiter.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Mapping", "Node", "Odd", "Problems", "read_nodes", "shown", "shown_name", "suggestion"]

#: Characters of a file, values in it, and how deep they may nest: far above what anybody writes, and still read within
#: seconds.
_LONGEST: Final = 16_000_000
_MOST_NODES: Final = 1_000_000
_DEEPEST: Final = 200

#: Complaints that are spelled out; of the others it is said how many there are.
_MOST_TOLD: Final = 50

#: An identifier or number longer than this is cut where it is shown.
_LONGEST_SHOWN: Final = 60

#: What YAML allows in a text, without the mark of a byte order (which only ever stands before it).
_UNREADABLE: Final = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
#: Whole numbers as people write them: YAML's own rules take 010 for eight and 1:30 for ninety.
_NUMBER: Final = re.compile(r"[-+]?(0|[1-9][0-9]*(_[0-9]+)*)")
_LONGEST_NUMBER: Final = 40
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_TOML_PLACE: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")

_LINE: Final = re.compile(r":(\d+)$")

_RESOLVER: Final[Any] = Resolver()
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Odd:
    """A value that is of no use in this file, in the words in which a message speaks of it."""

    words: str


@dataclass(slots=True)
class Node:
    """A value, and the place where it stands: a line, or (TOML tells none) the table it is in and its key there."""

    place: str | tuple[Node, str]
    value: Mapping | str | int | Odd | None

    @property
    def where(self) -> str:
        """How every message about this value begins."""
        keys: list[str] = []
        node = self
        while isinstance(node.place, tuple):
            node, key = node.place
            keys.append(key if _BARE_KEY.fullmatch(key) else shown(key).replace("'", '"'))
        return f"{node.place}: {'.'.join(reversed(keys))}" if keys else str(node.place)


Mapping: TypeAlias = dict[str, Node]


class Problems:
    """What is wrong with a file: all of it, one a line, in the order of the file."""

    def __init__(self) -> None:
        self._told: list[tuple[int, str]] = []
        self._more = 0

    @property
    def many(self) -> bool:
        """Whether what is added now is only counted: then advice need not be thought of."""
        return len(self._told) >= _MOST_TOLD

    def add(self, where: str, sentence: str) -> None:
        if not self.many:
            line = _LINE.search(where)
            self._told.append((int(line.group(1)) if line else 0, f"{where}: {sentence}"))
        else:
            self._more += 1

    def refuse(self) -> None:
        """Raise ``InvalidRequest`` if there was anything."""
        if self._told:
            more = [f"and {self._more} more like these"] if self._more else []
            told = [text for _, text in sorted(self._told, key=lambda one: one[0])]
            raise InvalidRequest("\n".join([*told, *more]))


def shown(value: object) -> str:
    """A value from a file as a message quotes it: on one line, and not longer than a line."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def shown_name(name: str) -> str:
    """A name as it is, if it is a short and plain one."""
    return name if len(name) <= _LONGEST_SHOWN and name.isprintable() else shown(name)


def suggestion(word: str, known: Iterable[str]) -> str:
    """`` (did you mean …?)`` if one of the known words is near."""
    near = difflib.get_close_matches(word[:_LONGEST_SHOWN], list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def read_nodes(text: str, name: str, problems: Problems) -> Node:
    """The root of a file; TOML if its name ends so, YAML otherwise."""
    if len(text) > _LONGEST:
        raise InvalidRequest(f"{name}: the file has {len(text)} characters; at most {_LONGEST} are read")
    if name.lower().endswith(".toml"):
        return _from_toml(text, name)
    return _FromYaml(name, problems).read(text.removeprefix("\ufeff"))


# -- YAML ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Open:
    """A collection whose end has not been read. Of a list nothing is kept but that it was one."""

    mapping: Mapping | None
    #: The key that waits for its value; ``None``: a key comes next. Its name is ``None`` if the value will be dropped.
    pending: tuple[str | None, str] | None = None


class _FromYaml:
    def __init__(self, name: str, problems: Problems) -> None:
        self._name = name
        self._problems = problems
        self._open: list[_Open] = []
        self._root: Node | None = None

    def read(self, text: str) -> Node:
        if found := _UNREADABLE.search(text):
            line = text.count("\n", 0, found.start())
            raise InvalidRequest(f"{self._where(line)}: the character {found.group()!r} cannot stand in YAML")
        for nodes, event in enumerate(self._events(text)):
            if nodes > _MOST_NODES or len(self._open) > _DEEPEST:
                limit = f"nested deeper than {_DEEPEST}" if len(self._open) > _DEEPEST else "too large"
                raise InvalidRequest(f"{self._where(event.start_mark.line)}: the file is {limit}")
            self._take(event)
        if self._root is None or self._root.value is None:
            raise InvalidRequest(
                f"{self._where(0)}: the file is empty; a file that manages nothing says {{}}"
            )
        return self._root

    def _events(self, text: str) -> Iterator[Any]:
        try:
            yield from yaml.parse(text, Loader=_LOADER)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            context = f" ({error.context})" if error.context else ""
            raise InvalidRequest(
                f"{self._where(mark.line if mark else 0)}: this is no YAML: {error.problem}{context}"
            ) from None
        except yaml.YAMLError as error:
            raise InvalidRequest(f"{self._name}: this is no YAML: {type(error).__name__}") from None

    def _where(self, line: int) -> str:
        return f"{self._name}:{line + 1}"

    def _take(self, event: Any) -> None:
        where = self._where(event.start_mark.line)
        if isinstance(event, yaml.DocumentStartEvent) and self._root is not None:
            raise InvalidRequest(f"{where}: a second document begins (---); a file holds one")
        if isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()
        elif isinstance(event, yaml.NodeEvent):
            self._refuse_extras(event, where)
            self._place(event, where)

    def _refuse_extras(self, event: Any, where: str) -> None:
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            self._problems.add(where, "anchors and aliases (&name, *name) are not read; write it out")
        elif event.tag not in (None, "!"):
            self._problems.add(where, "tags (!name) are not read")

    def _place(self, event: Any, where: str) -> None:
        """Put what an event begins where it belongs: at the root, as a key, or as the value of a key."""
        value = self._value(event)
        above = self._open[-1] if self._open else None
        if above is None:
            self._root = Node(where, value)
        elif above.mapping is not None and above.pending is None:
            above.pending = (self._key(event, where, above.mapping), where)
        elif above.mapping is not None and above.pending is not None:
            key, at = above.pending
            above.pending = None
            if key is not None:
                above.mapping[key] = Node(at, value)
        if isinstance(event, yaml.CollectionStartEvent):
            self._open.append(_Open(value if isinstance(value, dict) else None))

    def _value(self, event: Any) -> Mapping | str | int | Odd | None:
        if isinstance(event, yaml.MappingStartEvent):
            return {}
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event)
        return Odd("a list" if isinstance(event, yaml.SequenceStartEvent) else "an alias")

    def _key(self, event: Any, where: str, mapping: Mapping) -> str | None:
        """A key, which is a name and taken as it is written: 007, no and null are projects like any other."""
        if not isinstance(event, yaml.ScalarEvent):
            self._problems.add(where, "a key is a name, not a collection or an alias")
            return None
        key = event.value
        if key == "<<" and event.implicit[0]:
            self._problems.add(where, "merge keys (<<) are not read; write it out")
            return None
        if key in mapping:
            self._problems.add(where, f"{shown(key)} is here twice, first in {mapping[key].where}")
            return None
        return str(key)


def _scalar(event: Any) -> str | int | Odd | None:
    text: str = event.value
    if not event.implicit[0]:  # in quotes
        return text
    kind = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False)).rpartition(":")[2]
    if kind == "null":
        return None
    if kind == "int" and len(text) <= _LONGEST_NUMBER and _NUMBER.fullmatch(text):
        return int(text)
    if kind in ("int", "float", "bool", "timestamp"):
        return Odd(shown(text)[1:-1])
    return text


# -- TOML ---------------------------------------------------------------------------------------------------------


def _from_toml(text: str, name: str) -> Node:
    try:
        table = tomllib.loads(text.removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError as error:
        place = _TOML_PLACE.search(str(error))
        line = (place.group(1) if place else None) or text.count("\n") + 1
        raise InvalidRequest(f"{name}:{line}: this is no TOML: {_TOML_PLACE.sub('', str(error))}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        raise InvalidRequest(f"{name}: this is no TOML that can be read: {type(error).__name__}") from None
    if not table:
        raise InvalidRequest(f"{name}: the file is empty")
    root = Node(name, {})
    waiting: list[tuple[Node, dict[str, Any], int]] = [(root, table, 0)]
    nodes = 0
    while waiting:
        above, entries, depth = waiting.pop()
        below: Mapping = {}
        above.value = below
        nodes += len(entries)
        if nodes > _MOST_NODES or depth > _DEEPEST:
            limit = f"nested deeper than {_DEEPEST}" if depth > _DEEPEST else "too large"
            raise InvalidRequest(f"{name}: the file is {limit}")
        for key, value in entries.items():
            below[key] = Node((above, key), _toml_value(value))
            if isinstance(value, dict):
                waiting.append((below[key], value, depth + 1))
    return root


def _toml_value(value: Any) -> Mapping | str | int | Odd | None:
    if isinstance(value, dict):
        return {}  # filled in its turn
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return Odd(str(value).lower())
    if isinstance(value, int):  # 0xfff… may be longer than Python is ready to write down
        return value if value.bit_length() <= 4 * _LONGEST_NUMBER else Odd("a number that long")
    return Odd("a list" if isinstance(value, list) else str(value))
