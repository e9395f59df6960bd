"""Limits and projects from a limits file that is watched."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from delimiter import limits_file
from delimiter.errors import InvalidRequest, StoreUnavailable
from delimiter.model import Scope

__all__ = ["FileSource"]

#: Bytes: what :func:`delimiter.limits_file.parse` would take, at four for a character.
_LARGEST: Final = 64_000_000

#: Nanoseconds within which a second change may leave a file's times as they are: file systems count in steps, the
#: coarsest in use in two seconds.
_UNSETTLED: Final = 2_500_000_000

#: How often to read a file again that was written to meanwhile: half of a change is no content.
_ATTEMPTS: Final = 3

_NOTHING: Final[Mapping[str, int]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class _Stamp:
    """By what a file is seen to have changed."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, found: os.stat_result) -> _Stamp:
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    @property
    def settled(self) -> bool:
        return time.time_ns() - max(self.modified, self.changed) > _UNSETTLED


@dataclass(frozen=True, slots=True)
class _Content:
    """What one reading of the file found: what it says, or what is wrong with it."""

    stamp: _Stamp
    #: Whether any later change would have changed the stamp too.
    settled: bool
    raw: bytes = field(repr=False)
    limits: Mapping[Scope, Mapping[str, int]] | None = None
    parents: Mapping[str, str | None] | None = None
    mistakes: str = ""


class FileSource:
    """The limits and the tree of a :mod:`limits file <delimiter.limits_file>` (YAML, or TOML by its suffix), watched.

    Every call looks whether the file has changed and reads it again if so: what it says now holds at the next claim.
    Of its sections ``limits`` and ``projects`` count, and of limits the maxima. While the file is missing, wrong, or
    without the section that is asked for, every call raises :class:`~delimiter.errors.StoreUnavailable` with all that
    is wrong, and claims are refused; :func:`delimiter.sources.cached` goes on with the last good answer for a while.
    Replace the file atomically (write another one beside it and rename it). Safe to share between threads.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "limits.yaml")
    ...     written = path.write_text("limits: {projects: {acme: {storage.gb: 500}}}")
    ...     dict(FileSource(path).limits(Scope("project", "acme")))
    {'storage.gb': 500}
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._lock = threading.Lock()
        self._content: _Content | None = None

    def __repr__(self) -> str:
        return f"FileSource({str(self._path)!r})"

    def limits(self, scope: Scope) -> Mapping[str, int]:
        """The maxima that the file gives this scope of its own, by resource; -1 is unlimited."""
        limits = self._now().limits
        if limits is None:
            raise self._without("limits")
        return limits.get(scope, _NOTHING)

    def ancestors(self, project: str) -> tuple[str, ...]:
        """The ancestors that the file gives a project, its parent first; none of one that it does not name."""
        parents = self._now().parents
        if parents is None:
            raise self._without("projects")
        found: list[str] = []
        above = parents.get(project)
        while above is not None:
            found.append(above)
            above = parents[above]
        return tuple(found)

    def _without(self, section: str) -> StoreUnavailable:
        return StoreUnavailable(
            f"{self._path}: there is no section {section}, and claims wait for what it says; write"
            f" '{section}: {{}}' if it is to say nothing",
            retryable=False,
        )

    def _now(self) -> _Content:
        """What the file says now; raises if it says nothing that can be used."""
        with self._lock:
            known = self._content
            try:
                stamp = _Stamp.of(_regular(self._path.stat(), self._path))
                if known is None or known.stamp != stamp or not known.settled:
                    self._content = known = self._read(known)
            except OSError as error:
                # What it said before is forgotten, so that a file that comes back is read whatever its times are.
                self._content = None
                raise StoreUnavailable(f"{self._path} cannot be read: {error.strerror}") from error
        if known.mistakes:
            raise StoreUnavailable(known.mistakes, retryable=False)
        return known

    def _read(self, known: _Content | None) -> _Content:
        stamp, settled, raw = self._bytes()
        if known is not None and known.raw == raw:
            return _Content(stamp, settled, raw, known.limits, known.parents, known.mistakes)
        try:
            document = limits_file.parse(self._text(raw), name=str(self._path))
        except InvalidRequest as error:
            return _Content(stamp, settled, raw, mistakes=str(error))
        parents = None if document.projects is None else dict(document.projects)
        return _Content(stamp, settled, raw, _maxima(document), parents)

    def _bytes(self) -> tuple[_Stamp, bool, bytes]:
        """The whole file, with its stamp and whether that had settled.

        The stamp is of the open file and taken before it is read. If the file is replaced, or written to, meanwhile,
        the next call sees another stamp, or one that had not settled.
        """
        for _ in range(_ATTEMPTS):
            with self._path.open("rb") as file:
                stamp = _Stamp.of(_regular(os.fstat(file.fileno()), self._path))
                settled = stamp.settled
                raw = file.read(_LARGEST + 1)
                # Not its other times: a file that is just replaced by another loses its name, which changes those.
                after = _Stamp.of(os.fstat(file.fileno()))
                if (after.size, after.modified) == (stamp.size, stamp.modified):
                    return stamp, settled, raw
        raise OSError(None, "it is written to all the time", str(self._path))

    def _text(self, raw: bytes) -> str:
        if len(raw) > _LARGEST:
            raise InvalidRequest(f"{self._path}: the file has more than {_LARGEST} bytes")
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            raise InvalidRequest(f"{self._path}:{line}: this is no UTF-8") from None


def _regular(found: os.stat_result, path: Path) -> os.stat_result:
    """Reading something else, such as a pipe, could wait for ever."""
    if not stat.S_ISREG(found.st_mode):
        raise OSError(None, "it is not a regular file", str(path))
    return found


def _maxima(document: limits_file.Document) -> Mapping[Scope, Mapping[str, int]] | None:
    if document.own_limits is None:
        return None
    found: dict[Scope, dict[str, int]] = {}
    for own in document.own_limits:
        if own.max is not None:
            found.setdefault(own.scope, {})[own.resource] = own.max
    return {scope: MappingProxyType(limits) for scope, limits in found.items()}
