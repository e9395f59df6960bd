"""A limits file as a source: what it says now, however it was changed, and nothing while it is wrong."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace as replaced
from pathlib import Path
from unittest.mock import Mock

import pytest

from delimiter import StoreUnavailable, limits_file
from delimiter.model import Scope
from delimiter.source import LimitSource, ProjectSource
from delimiter.sources import FileSource
from delimiter.sources import file as source_module

ACME = Scope("project", "acme")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "limits.yaml"


def say(path: Path, limit: int, *, tree: str = "{acme: {web: {front: }}}") -> None:
    path.write_text(f"limits: {{projects: {{acme: {{storage.gb: {limit}}}}}}}\nprojects: {tree}\n")


def replace(path: Path, text: str) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)


def complaint(source: FileSource, *, of: str = "limits") -> StoreUnavailable:
    with pytest.raises(StoreUnavailable) as caught:
        source.limits(ACME) if of == "limits" else source.ancestors("acme")
    return caught.value


# --- what it says ---------------------------------------------------------------------------------


def test_a_file_says_maxima_and_ancestors(path):
    path.write_text("""
projects: {acme: {web: {front: }}}
limits:
  total: {ram: 90}
  projects: {acme: {storage.gb: {max: 5, min: 1}, ram: unlimited}, web: {ram: {min: 3}}}
  users: {john: {ram: 7}}
""")
    source = FileSource(str(path))
    assert source.limits(Scope.total()) == {"ram": 90}
    assert source.limits(ACME) == {"storage.gb": 5, "ram": -1}
    assert source.limits(Scope("project", "web")) == {}, "a floor is no maximum"
    assert source.limits(Scope("user", "john")) == {"ram": 7}
    assert source.limits(Scope("user", "acme")) == {}
    assert source.ancestors("front") == ("web", "acme")
    assert source.ancestors("acme") == source.ancestors("stranger") == ()


def test_a_file_may_be_toml(tmp_path):
    path = tmp_path / "limits.toml"
    path.write_text("[limits.projects.acme]\n'storage.gb' = 5\n")
    assert FileSource(path).limits(ACME) == {"storage.gb": 5}


def test_it_is_a_source_of_both(path):
    assert isinstance(FileSource(path), LimitSource)
    assert isinstance(FileSource(path), ProjectSource)
    assert repr(FileSource("limits.yaml")) == "FileSource('limits.yaml')"


def test_what_it_says_cannot_be_changed_by_who_asks(path):
    say(path, 5)
    with pytest.raises(TypeError):
        FileSource(path).limits(ACME)["storage.gb"] = 9  # type: ignore[index]


# --- a changed file -------------------------------------------------------------------------------


def test_a_lowered_limit_is_seen_by_the_next_call(path):
    source = FileSource(path)
    for number in range(200):
        say(path, 300 - number)
        assert source.limits(ACME) == {"storage.gb": 300 - number}


def test_a_change_too_soon_for_the_file_system_to_tell_is_seen(path, monkeypatch):
    """Guard: `_Content.settled`. Many file systems count time in steps: size, inode and times stay as they were."""
    now = time.time_ns()
    monkeypatch.setattr(source_module._Stamp, "of", lambda _: source_module._Stamp(1, 1, 1, now, now))
    source = FileSource(path)
    for limit in (5, 4):
        say(path, limit)
        assert source.limits(ACME) == {"storage.gb": limit}


def test_a_file_that_was_replaced_is_seen_whatever_its_times_say(path, monkeypatch):
    """Guard: the inode in `_Stamp`."""
    say(path, 5)
    os.utime(path, ns=(0, 0))
    source = FileSource(path)
    monkeypatch.setattr(time, "time_ns", lambda: 2 * 10**18)  # everything has settled long ago
    assert source.limits(ACME) == {"storage.gb": 5}
    replace(path, path.read_text().replace("5", "4"))
    os.utime(path, ns=(0, 0))
    assert source.limits(ACME) == {"storage.gb": 4}


def test_a_file_that_stays_is_not_read_again(path, monkeypatch):
    say(path, 5)
    read = Mock(side_effect=FileSource(path)._bytes)
    monkeypatch.setattr(FileSource, "_bytes", read)
    source = FileSource(path)
    later = time.time_ns() + 10**10
    monkeypatch.setattr(time, "time_ns", lambda: later)
    for _ in range(5):
        assert source.limits(ACME) == {"storage.gb": 5}
    assert read.call_count == 1


def test_a_file_read_again_without_a_change_is_not_parsed_again(path, monkeypatch):
    say(path, 5)
    parse = Mock(side_effect=limits_file.parse)
    monkeypatch.setattr(limits_file, "parse", parse)
    source = FileSource(path)
    for _ in range(5):
        assert source.limits(ACME) == {"storage.gb": 5}
    assert parse.call_count == 1


def test_a_file_replaced_all_the_time_is_always_read_whole(path):
    texts = [
        f"limits: {{projects: {{acme: {{a: {number}, b: {number}, c: {'9' * number}}}}}}}"
        for number in range(1, 19)
    ]
    replace(path, texts[0])
    source = FileSource(path)
    seen: list[dict[str, int]] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.append(dict(source.limits(ACME)))

    watchers = [threading.Thread(target=look) for _ in range(4)]
    for watcher in watchers:
        watcher.start()
    for number in range(300):
        replace(path, texts[number % len(texts)])
    done.set()
    for watcher in watchers:
        watcher.join()
    assert seen
    assert all(one["a"] == one["b"] == len(str(one["c"])) for one in seen)


def test_a_file_written_to_all_the_time_is_refused(path, monkeypatch):
    say(path, 5)
    changes = iter(range(10**6))
    of = source_module._Stamp.of
    monkeypatch.setattr(source_module._Stamp, "of", lambda found: replaced(of(found), modified=next(changes)))
    assert "written to all the time" in str(complaint(FileSource(path)))


# --- a file that is no good -----------------------------------------------------------------------


def test_a_missing_file_is_said_to_be_and_one_that_comes_is_read(path):
    source = FileSource(path)
    assert str(complaint(source)) == f"{path} cannot be read: No such file or directory"
    assert complaint(source).retryable
    say(path, 5)
    assert source.limits(ACME) == {"storage.gb": 5}
    path.unlink()
    complaint(source)
    complaint(source, of="projects")


def test_a_file_with_mistakes_says_nothing_and_what_it_said_before_is_not_kept(path):
    say(path, 5)
    source = FileSource(path)
    assert source.limits(ACME) == {"storage.gb": 5}
    path.write_text("limits:\n  total: {ram: many}\n  user: {}\n")
    for _ in range(2):
        refused = complaint(source)
        assert str(refused).splitlines() == [
            f"{path}:2: ram must be a whole number or unlimited, not 'many'",
            f"{path}:3: unknown key user (did you mean users?)",
        ]
        assert not refused.retryable
    say(path, 4)
    assert source.limits(ACME) == {"storage.gb": 4}


def test_a_file_that_is_being_written_is_empty_and_refused(path):
    path.write_text("")
    assert "empty" in str(complaint(FileSource(path)))


@pytest.mark.parametrize("asked, there", [("limits", "projects: {}"), ("projects", "limits: {}")])
def test_a_section_that_is_not_there_is_not_taken_for_an_empty_one(path, asked, there):
    path.write_text(there)
    refused = complaint(FileSource(path), of=asked)
    assert f"there is no section {asked}" in str(refused)
    assert not refused.retryable


def test_what_is_no_file_is_not_waited_for(tmp_path):
    assert "not a regular file" in str(complaint(FileSource(tmp_path)))
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in str(complaint(FileSource(tmp_path / "pipe")))


def test_bytes_that_are_no_text_are_refused_with_their_line(path):
    path.write_bytes(b"limits: {}\n\xff\xfe\n")
    assert str(complaint(FileSource(path))) == f"{path}:2: this is no UTF-8"


def test_a_file_that_is_too_large_is_not_taken_in(path, monkeypatch):
    monkeypatch.setattr(source_module, "_LARGEST", 5)
    say(path, 5)
    assert "more than 5 bytes" in str(complaint(FileSource(path)))
