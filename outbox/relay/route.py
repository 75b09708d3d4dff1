"""How a row of the database says that its job belongs to another connection.

Such a row is in a queue of its own, named after the connection, that no worker drains. Its headers say which queue the
job will be in over there, and how long it is to wait there: a row whose job has a delay is moved as soon as any other.
"""

from __future__ import annotations

from typing import Any

from outbox.drivers.values import Claim
from outbox.envelope import Envelope, Headers
from outbox.errors import InvalidPayload
from outbox.options import RELAY_PREFIX


def relay_queue(connection: str) -> str:
    """The queue of the database in which jobs for ``connection`` wait to be moved on."""
    return RELAY_PREFIX + connection


def relayed_connection(queue: str) -> str | None:
    """The connection that the jobs of this queue are for; None for an ordinary queue."""
    return queue.removeprefix(RELAY_PREFIX) if queue.startswith(RELAY_PREFIX) else None


def to_relay_row(envelope: Envelope, connection: str) -> Envelope:
    """``envelope`` as it waits in the database."""
    route: dict[str, Any] = {
        "relayed_to": envelope.queue,
        "policies": envelope.policies,
    }
    if envelope.policies is None:
        route |= {"relayed_delay": envelope.delay or None, "relayed_until": envelope.available_at}
        envelope = envelope._replace(delay=0.0, available_at=None)
    # Otherwise it waits here: policies admit it when it is due.
    headers = Headers.load(envelope.headers).model_copy(update=route)
    return envelope._replace(queue=relay_queue(connection), headers=headers.dump())


def from_relay_row(claim: Claim) -> Envelope:
    """The job of a claimed row as it was dispatched: its delay counts from when the row was written.

    Raises:
        InvalidPayload: the headers do not say to which queue, or the row holds what no job has.
    """
    headers = Headers.load(claim.headers)
    if headers.relayed_to is None:
        raise InvalidPayload(f"{claim.name}: the headers do not say which queue of {claim.queue} the job is for")
    try:
        claim.payload.encode()
        claim.name.encode()
    except UnicodeEncodeError as error:
        raise InvalidPayload(f"{claim.name!a}: what the row holds is not UTF-8: {error}") from error
    if "\n" in claim.name:
        raise InvalidPayload(f"{claim.name!a}: no job has a name of several lines")
    bare = headers.model_copy(update={"relayed_to": None, "relayed_delay": None, "relayed_until": None})
    return Envelope(
        claim.fence.job_id,
        headers.relayed_to,
        claim.name,
        claim.priority,
        claim.payload,
        bare.dump(),
        headers.relayed_delay or 0.0,
        headers.relayed_until,
    )
