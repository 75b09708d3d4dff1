"""Says loudly, as the last thing of a test run, which servers were missing; under CI=true that fails the run."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.servers.errors import ServerMissingError

# What ServerMissingError says: the report of a skipped test holds nothing but its words.
MISSING = re.compile(r"no \w+ server: .*")


@contextmanager
def skipping() -> Iterator[None]:
    """Skip the test whose server is missing."""
    try:
        yield
    except ServerMissingError as missing:
        pytest.skip(str(missing))


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("true", "1")


class MissingServers:
    """A pytest plugin. It reads the reports, so it counts tests that ran in other processes too."""

    def __init__(self) -> None:
        self._skipped: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and (found := MISSING.search(_reason(report))):
            self._skipped[found[0]] += 1

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Iterator[None]:
        """Outermost, so that these lines come after pytest's own summary."""
        if self._skipped and in_ci() and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        yield
        terminal = session.config.pluginmanager.get_plugin("terminalreporter")
        if self._skipped and terminal:
            for line in self.lines():
                terminal.write_line(line, red=True, bold=True)

    def lines(self) -> Iterator[str]:
        verdict = "FAILED, because CI is set:" if in_ci() else "NOT TESTED:"
        for missing, tests in sorted(self._skipped.items()):
            yield f"{verdict} {tests} {'test' if tests == 1 else 'tests'} skipped, {missing}"


def _reason(report: pytest.TestReport) -> str:
    return report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
