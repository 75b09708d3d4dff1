"""A group of MySQL servers: one primary and members that can take its place, or primaries all of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tests.servers import process
from tests.servers.errors import ServerFailedError
from tests.servers.mysql import MySQL
from tests.servers.sql import connection

REMEDY = "no group replication here: install MySQL 8.0.27 or later with its plugin group_replication.so"
GROUP = "6b4a9a4e-0000-11ee-8000-0123456789ab"
FORM_SECONDS = 120.0


def missing() -> str | None:
    """Why there can be no group on this machine; None where there can."""
    program = MySQL.program_on_this_machine()
    if program is None:
        return f"{REMEDY} (there is no MySQL at all)"
    here = Path(program).resolve().parent
    directories = (here / "usr/lib/mysql/plugin", here.parent / "lib/mysql/plugin", here.parent / "lib64/mysql/plugin")
    return None if any((plugins / "group_replication.so").exists() for plugins in directories) else REMEDY


class Member(MySQL):
    """One of the servers. ``peers`` are the ports on which they talk, its own among them."""

    def __init__(self, directory: Path, number: int, peers: Sequence[int], template: Path, *, many: bool) -> None:
        addresses = [f"127.0.0.1:{port}" for port in peers]
        options = {
            "server-id": number + 1,
            "report-host": "127.0.0.1",
            "gtid-mode": "ON",
            "enforce-gtid-consistency": "ON",
            "plugin-load-add": "group_replication.so",
            "loose-group-replication-group-name": GROUP,
            "loose-group-replication-start-on-boot": "OFF",
            "loose-group-replication-local-address": addresses[number],
            "loose-group-replication-group-seeds": ",".join(addresses),
            "loose-group-replication-single-primary-mode": "OFF" if many else "ON",
            "loose-group-replication-enforce-update-everywhere-checks": "ON" if many else "OFF",
            # A member that does not answer is expelled as soon as the group suspects it, after five seconds.
            "loose-group-replication-member-expel-timeout": 0,
        }
        words = [f"--{name}={value}" for name, value in options.items()]
        super().__init__(directory, options=words, template=template)

    def fill(self) -> None:
        super().fill()
        (self.data / "auto.cnf").unlink(missing_ok=True)  # the name of the server that it was copied from

    def join(self, *, found: bool = False) -> None:
        """Become a member: of a group that this one has ``found`` first.

        :raises ServerFailedError: it did not, and its log may say why.
        """
        with connection(self.url) as database:
            database.execute(text("SET GLOBAL super_read_only = OFF"))
            database.execute(
                text("CHANGE REPLICATION SOURCE TO SOURCE_USER = 'root' FOR CHANNEL 'group_replication_recovery'")
            )
            if found:
                database.execute(text("SET GLOBAL group_replication_bootstrap_group = ON"))
            try:
                database.execute(text("START GROUP_REPLICATION"))
            except DBAPIError as error:
                raise ServerFailedError(f"{error.orig}\n{process.tail(self.log)}") from error
            database.execute(text("SET GLOBAL group_replication_bootstrap_group = OFF"))

    def rule_alone(self) -> None:
        """Make this one of several primaries the only one."""
        with connection(self.url) as database:
            server = database.scalar(text("SELECT @@server_uuid"))
            database.execute(text(f"SELECT group_replication_switch_to_single_primary_mode('{server}')")).all()

    def roles(self) -> dict[int, str]:
        """The members that are online, by their ports, as this one sees them; empty when it does not answer."""
        query = (
            "SELECT member_port, member_role FROM performance_schema.replication_group_members "
            "WHERE member_state = 'ONLINE'"
        )
        try:
            with connection(self.url) as database:
                return {int(row[0]): str(row[1]) for row in database.execute(text(query))}
        except DBAPIError:
            return {}


@contextmanager
def group(
    directory: Path, size: int, *, many: bool = False, template: Path | None = None
) -> Iterator[Sequence[Member]]:
    """``size`` members that are online, the first of them the primary; with ``many`` all of them. ``template`` is a
    prepared MySQL, where there is one.

    :raises ServerFailedError: they did not become a group.
    """
    peers = [process.free_port() for _ in range(size)]
    if template is None:
        template = directory / "template"
        template.mkdir(parents=True)
        MySQL.prepared(template)
    with ExitStack() as stack:
        members = [Member(directory / f"member{n}", n, peers, template, many=many) for n in range(size)]
        for member in members:
            stack.callback(member.kill)
        with ThreadPoolExecutor() as at_once:
            list(at_once.map(Member.start, members))
        members[0].join(found=True)
        # One after the other: two that join at once get in each other's way, and one of them may be refused.
        for member in members[1:]:
            member.join()
        wait_for_roles(members, size)
        yield members


def wait_for_primary(members: Sequence[Member]) -> Member:
    """The one of these, which are the survivors, that has been made the primary."""
    deadline = time.monotonic() + FORM_SECONDS
    while True:
        roles = members[0].roles()
        for member in members:
            if roles.get(member.port) == "PRIMARY":
                return member
        if time.monotonic() > deadline:
            raise ServerFailedError(f"no new primary: {roles}\n{process.tail(members[0].log)}")
        time.sleep(0.05)


def wait_for_roles(members: Sequence[Member], size: int) -> None:
    """Until each of the members sees ``size`` online."""
    deadline = time.monotonic() + FORM_SECONDS
    while not all(len(member.roles()) == size for member in members):
        if time.monotonic() > deadline:
            raise ServerFailedError(f"no group of {size}: {members[0].roles()}\n{process.tail(members[-1].log)}")
        time.sleep(0.05)
