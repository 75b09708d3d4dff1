"""Several Redis servers that know each other: a cluster, and a master with a replica and a sentinel."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from redis import Redis as Client

from tests.servers import Redis
from tests.servers.process import free_port

WAIT_SECONDS = 60.0
SLOTS = 16_384


class ClusterServer(Redis):
    """One of the nodes."""

    def __init__(self, directory: Path) -> None:
        self.bus_port = free_port()
        super().__init__(
            directory,
            options=(
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                str(self.bus_port),
                # A node that has stopped for some seconds, on a busy machine, is not given up by the others.
                "--cluster-node-timeout",
                "10000",
            ),
        )


class SentinelServer(Redis):
    """Watches the master at ``watched`` and replaces it after three seconds without an answer."""

    password = "of the sentinel"

    def __init__(self, directory: Path, watched: int) -> None:
        super().__init__(directory)
        self.watched = watched

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def prepare(self) -> None:
        super().prepare()
        (self.data / "sentinel.conf").write_text(
            f"bind 127.0.0.1\nport {self.port}\ndir {self.data}\nrequirepass {self.password!r}\n"
            f"sentinel monitor jobs 127.0.0.1 {self.watched} 1\n"
            "sentinel down-after-milliseconds jobs 3000\nsentinel failover-timeout jobs 5000\n"
        )

    def command(self) -> list[str]:
        return [self.program, str(self.data / "sentinel.conf"), "--sentinel"]


@contextmanager
def cluster(directory: Path) -> Iterator[Sequence[ClusterServer]]:
    """Three nodes that share the slots."""
    with ExitStack() as running:
        nodes = [running.enter_context(ClusterServer(directory / f"node{number}")) for number in range(3)]
        clients = [running.enter_context(Client.from_url(node.url)) for node in nodes]
        bounds = [SLOTS * number // 3 for number in range(4)]
        for number, client in enumerate(clients):
            client.execute_command("CLUSTER ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for node in nodes[1:]:
            clients[0].execute_command("CLUSTER MEET", "127.0.0.1", node.port, node.bus_port)
        for client in clients:
            wait_for(lambda client=client: in_order(client), "the cluster is formed")
        yield nodes


def in_order(client: Client) -> bool:
    state = client.execute_command("CLUSTER INFO")
    known = {name: str(value) for name, value in state.items()}
    return (known["cluster_state"], known["cluster_known_nodes"]) == ("ok", "3")


def cluster_url(nodes: Sequence[ClusterServer]) -> str:
    return f"redis+cluster://127.0.0.1:{nodes[0].port},127.0.0.1:{nodes[1].port}"


def documented_user(admin: Client) -> str:
    """Make the user that `docs/redis.md` tells to make; return its name and password as in a URL."""
    page = (Path(__file__).parents[2] / "docs" / "redis.md").read_text()
    found = re.search(r"^ACL SETUSER (.+)$", page, re.MULTILINE)
    assert found
    name, *rights = found[1].split()
    admin.execute_command("ACL", "SETUSER", name, *rights)
    return f"{name}:{next(word[1:] for word in rights if word.startswith('>'))}"


def wait_for(happened: Callable[[], bool], what: str) -> None:
    """Ask again and again: servers tell nobody what they agreed on."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not happened():
        assert time.monotonic() < deadline, f"{what}: not within {WAIT_SECONDS:.0f} s"
        time.sleep(0.05)
