"""Whatever a name holds, a terminal only shows it."""

from __future__ import annotations

import pytest

from delimiter.cli.safe_text import Text, harmless


@pytest.mark.parametrize(
    "text, shown",
    [
        ("plain", "plain"),
        ("jürgen 东京 👩‍👩‍👧", "jürgen 东京 👩‍👩‍👧"),
        ("two\nlines", "two\nlines"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\tb\rc", "a\\tb\\rc"),
        ("a\x9bb", "a\\x9bb"),
        ("a\u202eb\u2066c\u200fd", "a\\u202eb\\u2066c\\u200fd"),
        ("a\u2028b\u2029c\x85d", "a\\u2028b\\u2029c\\x85d"),
        ("a\ud800b", "a\\ud800b"),
    ],
    ids=ascii,
)
def test_what_a_terminal_would_act_on_is_spelt_out(text, shown):
    assert harmless(text) == shown
    assert Text(text).plain == shown
    assert Text("").append(text).plain == shown
    assert Text.assemble("", (text, "bold")).plain == shown


@pytest.mark.parametrize(
    "arguments",
    [("usage", "--user", "{}"), ("limit", "show", "--user", "{}"), ("claims", "--user", "{}"), ("{}",)],
    ids=" ".join,
)
def test_names_on_the_command_line(quota, arguments):
    for name in ("a\u202eb", "a\x1b]0;owned\x07b", "[red]x[/red]"):
        run = quota(*[word.format(name) for word in arguments])
        assert not {"\u202e", "\x1b", "\x07"} & set(run.out + run.err)
