"""What a dispatch writes: options and jobs are checked, and jobs become envelopes, before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import compress, islice

from outbox.client_state import ClientState, current_client
from outbox.connections import is_relayed
from outbox.dispatch.checks import check_class, several
from outbox.dispatch.conditions import allowed, mark_left_out
from outbox.dispatch.middleware import through_middleware
from outbox.encrypted_jobs import encrypt_job
from outbox.encryption import keyring
from outbox.envelope import Envelope, serialize_many
from outbox.events import Event
from outbox.ids import JobId, new_job_id
from outbox.ids import met as receipt_of_met
from outbox.job import Job
from outbox.job_definition import meant_option
from outbox.options import DISPATCH_OPTIONS, DispatchOptions, JobOptions
from outbox.policies.base import Policies
from outbox.settings import Settings

_SERIALIZED_AT_ONCE = 100


@dataclass(slots=True)
class Serialized:
    """What one dispatch writes."""

    client: ClientState
    settings: Settings
    """Those of the client when the dispatch began. To ask for them compares the environment with what was read."""
    ids: list[JobId]
    by_connection: dict[str, list[Envelope]]
    unique: bool = False
    """Whether one of the jobs is unique, so that the database is asked before it is written."""
    whole: Callable[[bool], Event] | None = None
    """Makes the event of the chain or the batch that the jobs are, from whether they are in a session."""

    def meet(self, met: Mapping[JobId, JobId]) -> None:
        """Leave out jobs that have met others of their keys."""
        if met:
            self.ids = [receipt_of_met(met[job_id]) if job_id in met else job_id for job_id in self.ids]
            for name, envelopes in self.by_connection.items():
                self.by_connection[name] = [envelope for envelope in envelopes if envelope.id not in met]


def serialize_all(jobs: Iterable[Job], options: DispatchOptions, *, takes_keys: bool = False) -> Serialized:
    """Check the options and every job before anything is written. Without ``takes_keys``, unique jobs meet no others.

    Raises:
        TypeError: there is no such option.
    """
    for name in options:
        if name not in DISPATCH_OPTIONS:
            meant = meant_option(name, DISPATCH_OPTIONS)
            hint = f"did you mean {meant!r}?" if meant else f"there are: {', '.join(sorted(DISPATCH_OPTIONS))}"
            raise TypeError(f"a dispatch has no option {name!r} ({hint})")
    serialized = nothing_serialized()
    settings = serialized.settings
    checked = JobOptions.checked(**options)
    remaining = iter(several(jobs))
    kinds: set[tuple[type[Job], str]] = set()
    # In portions, so that the jobs that a generator makes need not all be kept.
    while some := list(islice(remaining, _SERIALIZED_AT_ONCE)):
        if settings.dispatch_middleware:
            some = through_middleware(some, settings.dispatch_middleware)
        chosen = allowed(some, checked)
        wanted = some if chosen is None else list(compress(some, chosen))
        for job, envelope in zip(
            wanted, serialize_many(wanted, checked, payload_limit=settings.payload_limit), strict=True
        ):
            name = checked.connection or job.connection or settings.connection
            if (type(job), name) not in kinds:
                check_class(type(job), checked, settings, name)
                kinds.add((type(job), name))
            if job.encrypt if checked.encrypt is None else checked.encrypt:
                envelope = _encrypted(serialized, envelope, name)
            if envelope.policies is not None:
                is_relayed(settings, name)
                serialized.unique = serialized.unique or (takes_keys and bool(envelope.policies & Policies.UNIQUE))
            group = serialized.by_connection.setdefault(name, [])
            group.append(envelope)
            serialized.ids.append(envelope.id)
        if chosen is not None:
            mark_left_out(serialized.ids, chosen)
    return serialized


def nothing_serialized() -> Serialized:
    """What a dispatch begins with.

    Raises:
        ConfigurationError: a setting is wrong.
    """
    client = current_client()
    return Serialized(client, client.settings(), [], {})


def nothing_dispatched() -> Serialized:
    """Of a dispatch all of whose jobs are left out."""
    serialized = nothing_serialized()
    serialized.ids.append(receipt_of_met(new_job_id()))
    return serialized


def _encrypted(serialized: Serialized, envelope: Envelope, connection: str) -> Envelope:
    if serialized.client.recorder is not None:
        # A fake stores nothing, and a test needs no key for it.
        return envelope
    return encrypt_job(envelope, keyring(serialized.settings.encryption_keys), connection)
