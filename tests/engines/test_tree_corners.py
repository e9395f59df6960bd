"""Corners of trees and edits where something was wrong once: each test has been seen failing on the code as it was."""

from __future__ import annotations

import pytest

from delimiter import Delimiter, Resource, Scope, UnknownProject, UnknownResource
from delimiter.edits import AddProject, Define, LimitChange, SetLimit


def test_an_edit_that_was_only_tried_leaves_nothing_in_memory(store_url: str) -> None:
    """The number of a definition that was rolled back may be another's next. Guard: ``Definitions.make_in``."""
    resource = Resource("tried", "tried")
    edits = [Define(resource), SetLimit("tried", Scope("project", "acme"), LimitChange(max=1))]
    with Delimiter(store_url) as quota:
        assert quota.edit(edits, dry_run=True) == []
        with pytest.raises(UnknownProject):
            quota.edit([*edits, AddProject("web", "nobody")])
        quota.define_resource("real")
        quota.update_limits("real", project="acme", max=5)
        with pytest.raises(UnknownResource):
            quota.claim({"tried": 1}, project="acme")
        quota.define_resource("tried", project_max=7)
        quota.claim({"tried": 6}, project="acme")
        quota.claim({"real": 5}, project="acme")
        assert {name: one.used for name, one in quota.usage(project="acme").items()} == {
            "tried": 6,
            "real": 5,
        }
