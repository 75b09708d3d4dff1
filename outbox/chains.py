"""Chains: jobs that run one after the other. The next one is inserted in the settlement of the one before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Unpack

from outbox.client_state import current_client
from outbox.connections import is_relayed_to
from outbox.dispatch import (
    AnySession,
    Serialized,
    nothing_dispatched,
    serialize_all,
    several,
    stage_all,
    store_all,
    wanted_jobs,
    with_options,
)
from outbox.envelope import Envelope, as_member, link_of, with_headers
from outbox.errors import InvalidJob, InvalidOption, PayloadTooLarge
from outbox.events import ChainDispatched
from outbox.ids import JobId
from outbox.job import Job
from outbox.options import DispatchOptions
from outbox.policies.batch import BatchHeader
from outbox.policies.chain import MOST_LINKS, ChainHeader, Link


@with_options
async def dispatch_chain(
    jobs: Iterable[Job],
    *,
    catch: Job | None = None,
    session: AnySession | None = None,
    **options: Unpack[DispatchOptions],
) -> JobId:
    """Dispatch the first of ``jobs`` and return its id. Each next one enters its queue in the transaction that ends the
    one before, and reads what that returned as ``self.context.previous``: JSON, at most 64 KB.

    A chain goes on where a job completes. Where one fails for good, ``catch`` is dispatched, and the rest waits: to
    retry the failed job goes on with the chain. Where one is cancelled, or deletes itself, the chain ends.

    Jobs whose ``dispatch_if`` says no are left out: where that are all, ``created`` of the id is False.

    Options hold for all jobs, and ``delay`` for the first. All jobs are for one connection. The rest of a chain is
    stored with its next job: at most 1,000 jobs, and ``OUTBOX_PAYLOAD_LIMIT`` bytes in all.

    Raises:
        InvalidJob: there is no job, or there are over 1,000; or as `dispatch`.
        InvalidOption: the jobs are for several connections, or as `dispatch`.
        PayloadTooLarge: the chain is over the limit, or as `dispatch`.
        SessionUnusable, ConfigurationError, BackendUnavailable: as `dispatch`.
    """
    serialized = serialize_chain(jobs, catch, options)
    if session is not None:
        stage_all(session, serialized)
    else:
        await store_all(serialized)
    return serialized.ids[0]


def serialize_chain(
    jobs: Iterable[Job], catch: Job | None, options: DispatchOptions, *, batch: BatchHeader | None = None
) -> Serialized:
    """The first job of a chain, with the rest of it in its headers. Those after the first are made for ``batch``
    if the chain is a member of one."""
    steps = list(several(jobs))
    if not steps:
        raise InvalidJob("a chain has at least one job")
    steps = wanted_jobs(steps, options)
    if not steps:
        return nothing_dispatched()
    if catch is not None and not wanted_jobs([catch], options):
        catch = None
    options = {**options, "dispatch_if": True}
    rest = options.copy()
    rest.pop("delay", None)
    serialized = serialize_all(steps[:1], options)
    connection, [first] = next(iter(serialized.by_connection.items()))
    if batch is not None and is_relayed_to(serialized.settings, connection):
        raise InvalidOption(
            f"a chain in a batch is for a connection of the database, and {first.name} is for {connection!r}, which "
            "inserts the next job of a chain by itself: dispatch the chain to the database, or its jobs as members"
        )
    header = ChainHeader(
        id=first.id,
        rest=chain_links(steps[1:], connection, options=rest, batch=batch),
        catch=None if catch is None else chain_links([catch], connection, options=rest)[0],
    )
    serialized.by_connection[connection] = [with_headers(first, chain=header)]
    serialized.whole = partial(ChainDispatched, first.id, len(steps))
    return serialized


def chain_links(
    jobs: Sequence[Any],
    connection: str,
    *,
    before: Sequence[Link] = (),
    after: Sequence[Link] = (),
    options: DispatchOptions | None = None,
    batch: BatchHeader | None = None,
) -> tuple[Link, ...]:
    """``jobs`` between other links of a chain, checked as by `outbox.dispatch`. ``batch`` is the one that the chain is
    a member of.

    Raises:
        DispatchError: as `dispatch_chain`.
    """
    serialized = serialize_all(jobs, options or {}) if jobs else None
    envelopes: list[Envelope] = []
    settings = current_client().settings()
    for name, some in ({} if serialized is None else serialized.by_connection).items():
        if name != connection:
            raise InvalidOption(
                f"{some[0].name} is for the connection {name!r}, and its chain for {connection!r}: all jobs of a chain "
                "are for one connection"
            )
        envelopes += some
        if is_relayed_to(settings, name) and any(each.policies is not None for each in some):
            raise InvalidOption(
                f"{next(each.name for each in some if each.policies is not None)} has policies, and Redis inserts the "
                "next job of a chain by itself: use a chain of the database"
            )
    if batch is not None:
        # In each link, so that the batch also stays open where a worker of the last version inserts it.
        later = BatchHeader(id=batch.id, inside=True, in_chain=True)
        envelopes = [as_member(envelope, later) for envelope in envelopes]
    links = (*before, *map(link_of, envelopes), *after)
    size = sum(len(link.payload) + len(link.headers) for link in links)
    if len(links) >= MOST_LINKS:
        raise InvalidJob(f"a chain has at most {MOST_LINKS:,} jobs, not {len(links) + 1:,}: dispatch the others later")
    if size > settings.payload_limit:
        raise PayloadTooLarge(
            f"the chain: the payloads after its first job are {size:,} bytes, the limit {settings.payload_limit:,}: "
            "store the data elsewhere and dispatch its keys, or raise OUTBOX_PAYLOAD_LIMIT"
        )
    return links
