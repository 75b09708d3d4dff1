"""A pytest plugin: what the processes of one run share. These are servers, and which tests are to stay together."""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.servers.broker import Broker, ask, tell_groups


class SharedServers:
    """Asks the broker of this process, or, in a worker of pytest-xdist, the broker of the controller."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._address: str | None = getattr(config, "workerinput", {}).get("servers")
        self._broker: Broker | None = None

    def ask(self, wanted: str) -> str:
        """The URL of a server of a kind, or the directory of a prepared one.

        :raises ServerMissingError: nothing provides such a server here.
        :raises ServerFailedError: it does not start.
        """
        if self._address:
            return ask(self._address, wanted)
        answer = self.broker.answer(wanted)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def broker(self) -> Broker:
        if self._broker is None:
            self._broker = Broker()
        return self._broker

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """The controller of pytest-xdist is about to start a worker."""
        node.workerinput["servers"] = self.broker.address
        if self._config.args_source is pytest.Config.ArgsSource.TESTPATHS and not self._config.option.markexpr:
            for wanted in ("mysql", "mariadb"):  # the whole suite needs them, and collects for some seconds
                self.broker.start_soon(wanted)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if self._address and self._config.workerinput["workerid"] == "gw0":  # type: ignore[attr-defined]
            marked = [(item, item.get_closest_marker("xdist_group")) for item in session.items]
            tell_groups(self._address, {item.nodeid: str(mark.args[0]) for item, mark in marked if mark})

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> LoadScopeScheduling:
        return GroupScheduling(config, log, self.broker)

    def pytest_unconfigure(self) -> None:
        if self._broker is not None:
            self._broker.close()


class GroupScheduling(LoadScopeScheduling):
    """Tests with the same mark ``xdist_group`` go to one worker, all others to whichever is free.

    xdist's own scheduler reads the groups from the names of the tests, to which pytest 9.2 lets it add nothing.
    """

    def __init__(self, config: pytest.Config, log: Any, broker: Broker) -> None:
        super().__init__(config, log)
        self._broker = broker

    def _split_scope(self, nodeid: str) -> str:
        return self._broker.groups.get(nodeid, nodeid)
