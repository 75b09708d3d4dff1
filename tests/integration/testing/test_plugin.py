"""The fixtures in suites of applications, each in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from outbox import metadata
from tests.servers import databases

pytest_plugins = "pytester"

JOBS = """
import outbox
from outbox import Job

class Ship(Job):
    name = "suite.Ship"
    number: int

    async def handle(self) -> None:
        if self.number > 90:
            self.context.snooze(60)
"""

SUITE = """
import anyio
import pytest
import outbox
import outbox.sync
from shipping import Ship

@pytest.mark.parametrize("number", range(10))
def test_sync(outbox_fake, number):
    outbox.sync.dispatch(Ship(number=number))
    outbox_fake.assert_dispatched(Ship, number=number)
    outbox_fake.assert_dispatched(Ship, times=1)

class TestAsyncio:
    @pytest.fixture
    async def before(self):
        yield

    @pytest.mark.parametrize("number", range(10))
    async def test_asyncio(self, before, outbox_fake, number):
        await outbox.dispatch(Ship(number=number))
        outbox_fake.assert_dispatched(Ship, number=number, times=1)

class TestAnyio:
    @pytest.fixture(params=["asyncio"])
    def anyio_backend(self, request):
        return request.param

    @pytest.fixture
    async def before(self):
        yield

    @pytest.mark.anyio
    @pytest.mark.parametrize("number", range(10))
    async def test_anyio(self, before, outbox_fake, number):
        async with anyio.create_task_group() as group:
            group.start_soon(outbox.dispatch, Ship(number=number))
        outbox_fake.assert_dispatched(Ship, number=number, times=1)

def test_nothing(outbox_fake):
    outbox_fake.assert_nothing_dispatched()
"""

STORED = """
import pytest
import outbox
import outbox.sync
from outbox import testing
from shipping import Ship

async def test_async(outbox_drain, outbox_clock):
    await outbox.dispatch(Ship(number=1), delay=600)
    assert await outbox_drain() == []
    outbox_clock.travel(minutes=11)
    [ended] = await outbox_drain()
    assert ended.completed and ended.job.number == 1

def test_the_clock_was_reset(outbox_clock):
    assert not outbox_clock.ahead

def test_sync(outbox_drain):
    outbox.sync.dispatch(Ship(number=99))
    [ended] = outbox_drain.sync()
    assert ended.snoozed(60)
"""


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makepyfile(shipping=JOBS)
    pytester.makeini(
        """
        [pytest]
        asyncio_mode = auto
        asyncio_default_fixture_loop_scope = function
        filterwarnings = error
        pythonpath = .
        """
    )
    return pytester


@pytest.mark.parametrize("processes", ["0", "2"])
def test_a_suite_is_run_under_xdist_with_asyncio_and_anyio(suite: pytest.Pytester, processes: str) -> None:
    suite.makepyfile(test_suite=SUITE)
    # anyio's plugin leaves to asyncio's what that has taken in its mode `auto`.
    mode = ("-o", "asyncio_mode=strict", "-k", "not TestAsyncio")
    suite.runpytest_subprocess("-n", processes, "-k", "not TestAnyio").assert_outcomes(passed=21)
    suite.runpytest_subprocess("-n", processes, *mode).assert_outcomes(passed=21)


@pytest.mark.sqlite
def test_a_suite_works_off_what_it_has_stored(
    suite: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = databases.fresh_file(tmp_path)
    databases.create_tables(url, metadata)
    monkeypatch.setenv("DATABASE_URL", url)
    suite.makepyfile(test_stored=STORED)
    suite.runpytest_subprocess().assert_outcomes(passed=3)


def test_a_failing_assertion_shows_the_tests_line_and_what_was_dispatched(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        test_suite="""
        import outbox.sync
        from shipping import Ship

        def test_it(outbox_fake):
            outbox.sync.dispatch(Ship(number=7), delay=5)
            outbox_fake.assert_dispatched(Ship, number=8)
        """
    )
    result = suite.runpytest_subprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            ">*outbox_fake.assert_dispatched(Ship, number=8)",
            "E*AssertionError: Ship(number=8) was not dispatched. Dispatched were:",
            "E*  Ship(number=7) to the queue 'default' of 'database', after 5 s: stored",
            "test_suite.py:6: AssertionError",
        ]
    )
    result.stdout.no_fnmatch_line("*outbox/testing/*")


def test_a_fake_in_the_fixtures_fake_is_refused(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        test_suite="""
        from outbox.testing import fake

        def test_it(outbox_fake):
            with fake():
                pass
        """
    )
    result = suite.runpytest_subprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*RuntimeError: a fake is in use here already: use that one*"])


def test_a_suite_without_a_database_is_told_what_to_do(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        test_suite="""
        import shipping

        async def test_it(outbox_drain):
            await outbox_drain()
        """
    )
    result = suite.runpytest_subprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*ConfigurationError: *set DATABASE_URL to that of the test's database*"])
    assert not (suite.path / "outbox.db").exists()
