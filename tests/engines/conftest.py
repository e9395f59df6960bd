"""What several modules of tests on engines share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from engines.instances import Instances
from engines.service import Place


@pytest.fixture
def rows(place: Place, emptied_url: Callable[[str], str]) -> Iterator[Instances]:
    """The service's own table, on each place that the test asks for."""
    with Instances(place, emptied_url(place.store)).created() as rows:
        yield rows
