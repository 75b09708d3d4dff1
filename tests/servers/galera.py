"""A Galera cluster: MariaDB servers of which each takes writes, and which agree at COMMIT."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ClassVar

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tests.servers import process
from tests.servers.errors import ServerFailedError
from tests.servers.local import LocalServer
from tests.servers.mariadb import MariaDB
from tests.servers.sql import connection

REMEDY = "no Galera here: install galera-4 for MariaDB, or set OUTBOX_TEST_GALERA_PROVIDER to libgalera_smm.so"
PROVIDERS = (
    "/usr/lib/galera/libgalera_smm.so",
    "/usr/lib/galera-4/libgalera_smm.so",
    "/usr/lib64/galera-4/libgalera_smm.so",
)
FORM_SECONDS = 120.0
GROUP = "6b4a9a4e-0000-11ee-8000-0123456789ab"

# All nodes begin as a cluster that went down in one moment, each with the same (empty) history: they form it again as
# soon as all of them are there, and none has to be given the data of another, for which more programs would be needed.
STATE = f"""\
# GALERA saved state
version: 2.1
uuid:    {GROUP}
seqno:   0
safe_to_bootstrap: 0
"""


def provider() -> str | None:
    """Galera's library, which MariaDB loads."""
    if path := os.environ.get("OUTBOX_TEST_GALERA_PROVIDER"):
        return path
    return next((path for path in PROVIDERS if Path(path).exists()), None)


def missing() -> str | None:
    """Why there can be no cluster on this machine; None where there can."""
    if MariaDB.program_on_this_machine() is None:
        return f"{REMEDY} (and MariaDB itself)"
    return None if provider() else REMEDY


class GaleraNode(MariaDB):
    """One of the nodes. ``peers`` are the ports on which the nodes talk, its own among them."""

    settings: ClassVar[tuple[str, ...]] = (
        "--skip-name-resolve",
        "--character-set-server=utf8mb4",
        "--max-connections=300",
        "--innodb-buffer-pool-size=128M",
        "--innodb-flush-log-at-trx-commit=1",
        "--binlog-format=ROW",
        "--innodb-autoinc-lock-mode=2",
        "--wsrep-on=ON",
        "--wsrep-cluster-name=outbox",
        "--wsrep-sst-method=skip",
    )

    def __init__(
        self, directory: Path, number: int, peers: Sequence[int], template: Path, options: Sequence[str]
    ) -> None:
        super().__init__(directory, options=options, template=template)
        self.number = number
        self.peers = peers

    def prepare_to_join(self) -> None:
        """Fill the data directory, and let it remember the cluster."""
        self.fill()
        (self.data / "grastate.dat").write_text(STATE)
        members = "".join(f"member: {_member(number)} 0\n" for number in range(len(self.peers)))
        (self.data / "gvwstate.dat").write_text(
            f"my_uuid: {_member(self.number)}\n#vwbeg\nview_id: 3 {_member(0)} 1\nbootstrap: 0\n{members}#vwend\n"
        )

    def launch(self) -> None:
        """Start it, and wait for nothing: it answers when the cluster is formed."""
        self._process = process.start(self.command(), self.log)

    def command(self) -> list[str]:
        own = self.peers[self.number]
        options = {
            "gmcast.listen_addr": f"tcp://127.0.0.1:{own}",
            "base_port": own,
            "ist.recv_addr": f"127.0.0.1:{process.free_port()}",
            "gcache.size": "16M",
            # A node that dies is noticed within two seconds, not five.
            "evs.keepalive_period": "PT0.5S",
            "evs.suspect_timeout": "PT2S",
            "evs.inactive_timeout": "PT4S",
        }
        # MariaDB's own tables let root in. What makes sure of it would be written by each node for the whole cluster.
        return [
            *(word for word in super().command() if not word.startswith("--init-file")),
            f"--wsrep-provider={provider()}",
            f"--wsrep-cluster-address=gcomm://{','.join(f'127.0.0.1:{port}' for port in self.peers)}",
            "--wsrep-node-address=127.0.0.1",
            f"--wsrep-node-name=node{self.number}",
            f"--wsrep-provider-options={';'.join(f'{name}={value}' for name, value in options.items())}",
        ]


@contextmanager
def cluster(
    directory: Path, size: int, *, options: Sequence[str] = (), template: Path | None = None
) -> Iterator[Sequence[GaleraNode]]:
    """``size`` nodes in step with each other. ``template`` is a prepared MariaDB, where there is one.

    :raises ServerFailedError: they did not become a cluster.
    """
    peers = [process.free_port() for _ in range(size)]
    if template is None:
        template = directory / "template"
        template.mkdir(parents=True)
        MariaDB.prepared(template)
    with ExitStack() as stack:
        nodes = [GaleraNode(directory / f"node{number}", number, peers, template, options) for number in range(size)]
        for node in nodes:
            node.prepare_to_join()
            stack.callback(node.kill)
            node.launch()
        for node in nodes:
            wait_until(lambda node=node: synced(node.url, size), node, "is not in step with the cluster")
        yield nodes


def synced(url: str, size: int) -> bool:
    """Whether this node is one of ``size`` that are in step."""
    try:
        with connection(url) as database:
            rows = database.execute(text("SHOW STATUS LIKE 'wsrep%'"))
            status = {row[0]: row[1] for row in rows}
    except DBAPIError:
        return False
    return (status["wsrep_local_state_comment"], status["wsrep_cluster_size"]) == ("Synced", str(size))


def wait_until(happened: Callable[[], bool], server: LocalServer, what: str) -> None:
    """Ask again and again: servers tell nobody what they agreed on."""
    deadline = time.monotonic() + FORM_SECONDS
    while not happened():
        if server.pid is None or time.monotonic() > deadline:
            raise ServerFailedError(f"{server.url} {what}\n{process.tail(server.log)}")
        time.sleep(0.05)


def _member(number: int) -> str:
    return f"0000000{number + 1}-0000-11ee-8000-0123456789ab"
