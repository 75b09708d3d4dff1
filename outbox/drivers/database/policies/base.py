"""What a policy does with rows: the hooks of `PolicyRows`, which `registry` calls for all policies in one order.

Locks are taken in this order everywhere: rows of jobs, then rows of policies in the order of the registry, each by
primary key, ascending. A claim takes rows of policies with SKIP LOCKED and never waits for one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.dialects import Dialect, Statement
from outbox.drivers.values import PolicyNews
from outbox.envelope import Envelope, Headers
from outbox.ids import JobId
from outbox.policies.base import Policies
from outbox.settlement import Outcome

T = TypeVar("T")


class Candidate(NamedTuple):
    """A due job with policies. The claim that asks has locked its row."""

    job_id: JobId
    queue: str
    row: Any
    """A row of `Dialect.claimable`."""
    headers: Headers


class Leaving(NamedTuple):
    """A job with policies whose attempt has ended, or that was removed or rejected. Its row is locked."""

    job_id: JobId
    policies: int
    headers: Headers
    outcome: Outcome
    """What says whether it leaves for good. An operator's removal is `CANCELLED`, a rejected row `FAILED`."""
    delay: float = 0.0
    """Seconds until it may be claimed again, if it was put back."""
    in_session: bool = False
    """Whether its own transaction ends it: that may read a snapshot which is older than what waits for its end."""


class Returning(NamedTuple):
    """A failed job with policies that is about to become live again, by hand. Its row in the failed jobs is locked."""

    job_id: JobId
    policies: int
    headers: Headers


class Refusal(NamedTuple):
    """Why a failed job stays failed."""

    reason: str
    holder: JobId | None = None
    """The job that has what this one would need."""


@dataclass(frozen=True, slots=True)
class Run:
    """The job may run, with another payload if there is one."""

    payload: str | None = None
    version: int | None = None
    """Of that payload, where its class has one."""
    replaces: tuple[JobId, ...] = ()
    """Running jobs, locked by this transaction, that are cancelled for it."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Rows of the policy are locked by another transaction. A claim finds the job again after a fraction of a
    second."""


@dataclass(frozen=True, slots=True)
class Park:
    """The job is not found by claims for ``seconds``; None until the policy unparks it."""

    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Skip:
    """The job is removed without having run."""

    reason: str


Verdict = Run | Leave | Park | Skip
RUN = Run()


class Upkeep(NamedTuple):
    """What a policy's `upkeep` has done, and when it should be called again: None at the usual interval."""

    news: PolicyNews = PolicyNews()
    due: float | None = None
    """Seconds."""


class Chore(Protocol):
    """Something else that workers do in the upkeep of policies, if the one question of it says so."""

    def needs_upkeep(self) -> str:
        """An SQL condition."""

    async def upkeep(self) -> Upkeep: ...


def done(value: T) -> Plan[T]:
    """A plan without a statement."""
    yield from ()
    return value


class PolicyRows:
    """The rows of one policy. Each hook is called only with jobs that have its bit."""

    policy: Policies

    tables: tuple[str, ...] = ()
    """Those whose rows `upkeep` looks at: it is not called while they are empty. Without any it always is."""

    def dispatched(self, dialect: Dialect, jobs: Sequence[Envelope]) -> Plan[None]:  # noqa: ARG002
        """After the INSERT of ``jobs``, in the same transaction: the application's, or one of outbox's own."""
        return done(None)

    def admit(self, dialect: Dialect, candidates: Sequence[Candidate]) -> Plan[Mapping[JobId, Verdict]]:  # noqa: ARG002
        """Which of ``candidates`` may run; those that are left out may. In the claim's transaction.

        It locks and reads. What a start takes is written by `started`: another policy may still refuse.
        """
        return done({})

    def parked_before(self, dialect: Dialect, jobs: Sequence[Candidate]) -> Plan[None]:  # noqa: ARG002
        """In the claim's transaction: a policy that is asked before this one has parked ``jobs``, for as long as it
        takes. No other job may wait for them."""
        return done(None)

    def started(
        self,
        dialect: Dialect,  # noqa: ARG002
        starting: Sequence[Candidate],  # noqa: ARG002
        held_back: Sequence[Candidate],  # noqa: ARG002
    ) -> Plan[None]:
        """All policies have decided, in the same transaction. Of the candidates that this policy has admitted,
        ``starting`` run, and ``held_back`` were refused by a policy after it."""
        return done(None)

    def settled(self, dialect: Dialect, jobs: Sequence[Leaving]) -> Plan[PolicyNews]:  # noqa: ARG002
        """In the transaction of a settlement, a removal or a rejection. It may unpark other jobs."""
        return done(PolicyNews())

    def cancelled_in_session(self, dialect: Dialect, jobs: Sequence[Leaving]) -> Plan[None]:  # noqa: ARG002
        """An application's own transaction removes ``jobs``. It must wait for no worker: what only workers lock is
        left to `upkeep`."""
        return done(None)

    def retried(self, dialect: Dialect, jobs: Sequence[Returning]) -> Plan[Mapping[JobId, Refusal]]:  # noqa: ARG002
        """Failed jobs are about to become live again. Those that are returned stay failed."""
        return done({})

    def rescheduled(self, dialect: Dialect, job: Leaving, due: Statement) -> Plan[str | None]:  # noqa: ARG002
        """An operator gives a waiting job another time, the expression ``due``, in this transaction, which has locked
        its row. Returns why it must keep its time, or None."""
        return done(None)

    def explain(self, dialect: Dialect, job: Leaving) -> Plan[Sequence[str]]:  # noqa: ARG002
        """Lines that tell an operator what the policy does with a live job."""
        return done(())

    async def committed(self, database: Database, jobs: Sequence[Leaving]) -> PolicyNews:  # noqa: ARG002
        """After the commit of a settlement, for what needs a short transaction of its own. It may be lost with the
        process: `upkeep` repairs that."""
        return PolicyNews()

    async def upkeep(self, database: Database) -> Upkeep:  # noqa: ARG002
        """Called by workers now and then: repair what a crash has left, remove what is over, do what is due by time."""
        return Upkeep()
