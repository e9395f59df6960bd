"""The pytest plugin, from outside: a service's tests in a directory of their own, run by a pytest of their own."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.slow

SYNC = """
    import sys
    import pytest
    from delimiter import Conflict, OverLimit, StoreUnavailable
    from delimiter.testing import assert_claims_unchanged, assert_no_claims, fill

    CPU = "compute.vcpu"

    def test_nothing_is_loaded_before_it_is_needed():
        loaded = [name for name in sys.modules if name.partition(".")[0] in ("sqlalchemy", "alembic", "click")]
        assert loaded == []

    def test_time(delimiter_quota, delimiter_clock):
        delimiter_quota.define_resource(CPU, project_max=8)
        delimiter_quota.reserve({CPU: 8}, project="acme", expires_in=3600)
        delimiter_clock.advance(3600)
        delimiter_quota.claim({CPU: 8}, project="acme")

    def test_a_store_for_each_test(delimiter_quota):
        assert delimiter_quota.resources() == []
        assert_no_claims(delimiter_quota)

    def test_the_parts_belong_together(
        delimiter_sandbox, delimiter_quota, delimiter_aio_quota, delimiter_clock, delimiter_faults
    ):
        assert delimiter_sandbox.quota is delimiter_quota
        assert delimiter_sandbox.aio_quota is delimiter_aio_quota
        assert delimiter_sandbox.clock is delimiter_clock
        assert delimiter_sandbox.faults is delimiter_faults

    def test_failures(delimiter_quota, delimiter_faults):
        delimiter_quota.define_resource(CPU, project_max=8)
        with assert_claims_unchanged(delimiter_quota):
            with delimiter_faults.store_down(), pytest.raises(StoreUnavailable):
                delimiter_quota.claim({CPU: 1}, project="acme")
            with delimiter_faults.conflict(), pytest.raises(Conflict):
                delimiter_quota.claim({CPU: 1}, project="acme")
        fill(delimiter_quota, CPU, project="acme")
        with pytest.raises(OverLimit):
            delimiter_quota.claim({CPU: 1}, project="acme")
"""

ON_SQLITE = """
    import pytest
    import sqlalchemy as sa
    from sqlalchemy.orm import Session

    CPU = "compute.vcpu"

    @pytest.fixture
    def delimiter_store(delimiter_sqlite):
        return delimiter_sqlite

    def test_a_transaction_of_ones_own(delimiter_quota, delimiter_sqlite, delimiter_clock):
        delimiter_quota.define_resource(CPU, project_max=8)
        with pytest.raises(ZeroDivisionError), Session(delimiter_sqlite) as session, session.begin():
            delimiter_quota.claim({CPU: 8}, project="acme", connection=session)
            1 / 0
        with Session(delimiter_sqlite) as session, session.begin():
            delimiter_quota.reserve({CPU: 8}, project="acme", expires_in=60, connection=session)
        assert delimiter_quota.usage(project="acme")[CPU].used == 8
        delimiter_clock.advance(60)
        assert delimiter_quota.usage(project="acme")[CPU].used == 0

    def test_a_store_for_each_test(delimiter_quota):
        assert delimiter_quota.resources() == []

    @pytest.mark.parametrize("delimiter_store", ["memory://"])
    def test_another_store_for_one_test(delimiter_quota, delimiter_store):
        assert delimiter_quota.resources() == []
"""

ASYNC = """
    import pytest
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
    from delimiter import OverLimit, StoreUnavailable
    from delimiter.testing import assert_no_claims, fill

    CPU = "compute.vcpu"
    pytestmark = pytest.mark.asyncio

    async def test_time(delimiter_aio_quota, delimiter_quota, delimiter_clock):
        await delimiter_aio_quota.define_resource(CPU, project_max=8)
        fill(delimiter_quota, CPU, project="acme", leave=2)
        await delimiter_aio_quota.reserve({CPU: 2}, project="acme", expires_in=60)
        with pytest.raises(OverLimit):
            await delimiter_aio_quota.claim({CPU: 2}, project="acme")
        delimiter_clock.advance(60)
        await delimiter_aio_quota.claim({CPU: 2}, project="acme")

    async def test_a_lost_answer(delimiter_aio_quota, delimiter_quota, delimiter_faults):
        delimiter_quota.define_resource(CPU, project_max=8)
        with delimiter_faults.lost_answer(), pytest.raises(StoreUnavailable):
            await delimiter_aio_quota.claim({CPU: 8}, project="acme", id="vm-1")
        assert (await delimiter_aio_quota.claim({CPU: 8}, project="acme", id="vm-1")).live

    class TestOnSqlite:
        @pytest.fixture
        def delimiter_store(self, delimiter_sqlite):
            return delimiter_sqlite

        async def test_a_session(self, delimiter_aio_quota, delimiter_sqlite):
            await delimiter_aio_quota.define_resource(CPU, project_max=8)
            engine = create_async_engine(f"sqlite+aiosqlite:///{delimiter_sqlite.url.database}")
            for end in ("rollback", "commit"):
                async with AsyncSession(engine) as session:
                    await delimiter_aio_quota.claim({CPU: 8}, project="acme", connection=session)
                    await getattr(session, end)()
            assert [claim.resources[CPU] async for claim in delimiter_aio_quota.claims()] == [8]
            await engine.dispose()
"""

FAILING = """
    from delimiter.testing import assert_no_claims

    def test_a_leak(delimiter_quota):
        delimiter_quota.define_resource("compute.vcpu")
        delimiter_quota.claim({"compute.vcpu": 2}, project="acme", id="vm-1")
        assert_no_claims(delimiter_quota)

    def test_nothing_met_it(delimiter_faults):
        with delimiter_faults.conflict():
            pass
"""

TURNED_OFF = """
    import sys

    import pytest

    def test_it_is_not_there(request):
        with pytest.raises(pytest.FixtureLookupError):
            request.getfixturevalue("delimiter_quota")
        assert "delimiter" not in sys.modules
"""


@pytest.mark.parametrize(
    "tests, passed", [(SYNC, 5), (ON_SQLITE, 3), (ASYNC, 3)], ids=["sync", "sqlite", "async"]
)
def test_a_services_tests(pytester: pytest.Pytester, tests: str, passed: int) -> None:
    """Every warning is an error there: a file or a connection that is left open would fail it."""
    pytester.makepyfile(tests)
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=passed)


def test_what_fails_says_why_at_the_line_of_the_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(FAILING)
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            ">*assert_no_claims(delimiter_quota)",
            "E*1 claims are still held:",
            "E*vm-1 (provisioned) of project acme: {'compute.vcpu': 2}",
            "E*the conflict was met by 0 calls, not by 1 of them",
        ]
    )
    result.stdout.no_fnmatch_line("*claims.py*")


def test_it_can_be_turned_off(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TURNED_OFF)
    pytester.runpytest_subprocess("-p", "no:delimiter").assert_outcomes(passed=1)


def test_its_fixtures_are_told_of(pytester: pytest.Pytester) -> None:
    names = ["aio_quota", "clock", "faults", "quota", "sandbox", "sqlite", "store"]
    lines = [f"delimiter_{name} -- *" for name in names]
    pytester.runpytest_subprocess("--fixtures").stdout.fnmatch_lines_random(lines)
