"""The members of a batch that are dispatched with it or added to it: jobs, and chains of jobs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from outbox.chains import serialize_chain
from outbox.connections import is_relayed, is_relayed_to
from outbox.dispatch import Serialized, serialize_all, wanted_jobs
from outbox.envelope import as_member
from outbox.errors import InvalidOption
from outbox.job import Job
from outbox.options import DispatchOptions
from outbox.policies.batch import BatchHeader
from outbox.settings import DATABASE

Chain = Sequence[Job]
"""Jobs that run one after the other, as one member of a batch."""


def wanted_members(members: Sequence[Any], options: DispatchOptions) -> list[Any]:
    """Those of ``members`` of which ``dispatch_if`` leaves anything."""
    wanted: list[Any] = []
    for is_chain, some in groupby(members, _is_chain):
        if is_chain:
            wanted += [chain for chain in some if not chain or wanted_jobs(chain, options)]
        else:
            wanted += wanted_jobs(some, options)
    return wanted


def _is_chain(member: object) -> bool:
    return isinstance(member, Sequence)


def add_members(serialized: Serialized, members: Sequence[Any], header: BatchHeader, options: DispatchOptions) -> None:
    """Add jobs and chains to what is dispatched, as members of a batch.

    Raises:
        InvalidOption: a chain is for Redis, which inserts its next job without the database.
    """
    for is_chain, some in groupby(members, _is_chain):
        if is_chain:
            for chain in some:
                _add(serialized, serialize_chain(chain, None, options, batch=header), header)
        else:
            _add(serialized, serialize_all(some, options), header)


def _add(serialized: Serialized, part: Serialized, header: BatchHeader) -> None:
    serialized.ids.extend(part.ids)
    for name, envelopes in part.by_connection.items():
        is_relayed(part.settings, name)
        members = [as_member(envelope, header) for envelope in envelopes]
        serialized.by_connection.setdefault(name, []).extend(members)


def check_one_database(serialized: Serialized) -> None:
    """
    Raises:
        InvalidOption: the jobs are kept in several databases.
    """
    settings = serialized.settings
    names = {DATABASE if is_relayed_to(settings, name) else name for name in serialized.by_connection}
    if len(names) > 1:
        raise InvalidOption(
            f"the jobs of a batch are kept in one database, and these are for {', '.join(sorted(names))}"
        )
