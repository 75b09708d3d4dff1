"""In place of the stores: what was dispatched, to be asserted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import Token
from typing import Any, NoReturn
from uuid import UUID

from sqlalchemy.orm import Session

from outbox.client_state import ClientState, Part, current_client, enter_client, leave_client
from outbox.envelope import Envelope
from outbox.events import Events
from outbox.job import Job
from outbox.settings import Settings
from outbox.testing.block import Block
from outbox.testing.boundaries import Fate, follow
from outbox.testing.dispatched import Dispatched, J, dispatched_of, job_of

_FOLLOW_UPS = ("then", "catch", "finally_")
_ONCE = "a fake is in use here already: use that one, or enter the second after the first has ended"


class Fake:
    """Records dispatches. They are validated as ever; nothing is stored, and no database is needed.

    A job in a session counts from its dispatch on, unless its transaction or savepoint is rolled back, or closed
    without a commit.
    """

    def __init__(self) -> None:
        self._recorded: list[Dispatched[Any]] = []

    def record(self, by_connection: Mapping[str, Sequence[Envelope]], session: Session | None) -> None:
        recorded = [
            dispatched_of(envelope, connection, in_session=session is not None)
            for connection, envelopes in by_connection.items()
            for envelope in envelopes
        ]
        if session is not None and recorded:
            follow(session, recorded)
        self._recorded += sorted(recorded, key=lambda each: each.id.bytes)

    @property
    def dispatches(self) -> list[Dispatched[Any]]:
        """What was dispatched and not rolled back, in the order of dispatch."""
        return [each for each in self._recorded if each.fate is not Fate.ROLLED_BACK]

    def dispatched(
        self, kind: type[J], *, where: Callable[[J], object] | None = None, **fields: Any
    ) -> list[Dispatched[J]]:
        """Those of the class ``kind`` with these values of ``fields``, for which ``where(job)`` is true.

        Raises:
            TypeError: the class has no such field.
        """
        for name in fields:
            if name not in kind.model_fields:
                known = ", ".join(kind.model_fields) or "none"
                raise TypeError(f"{kind.__name__} has no field {name!r}; its fields: {known}")
        return [
            each
            for each in self.dispatches
            if isinstance(each.job, kind)
            and all(getattr(each.job, name) == value for name, value in fields.items())
            and (where is None or where(each.job))
        ]

    def assert_dispatched(
        self,
        kind: type[J],
        *,
        times: int | None = None,
        where: Callable[[J], object] | None = None,
        **fields: Any,
    ) -> Dispatched[J] | None:
        """Assert that `dispatched` finds one, or exactly so many ``times``. Return the first.

        Raises:
            AssertionError: it does not; the message lists what was dispatched.
            TypeError: the class has no such field.
        """
        __tracebackhide__ = True
        found = self.dispatched(kind, where=where, **fields)
        if times is None and not found:
            self._fail(f"{_wanted(kind, where, fields)} was not dispatched")
        if times is not None and len(found) != times:
            self._fail(f"{_wanted(kind, where, fields)} was dispatched {_times(len(found))}, not {_times(times)}")
        return found[0] if found else None

    def assert_not_dispatched(
        self, kind: type[J], *, where: Callable[[J], object] | None = None, **fields: Any
    ) -> None:
        """Assert that `dispatched` finds none.

        Raises:
            AssertionError, TypeError: as `assert_dispatched`.
        """
        __tracebackhide__ = True
        found = self.dispatched(kind, where=where, **fields)
        if found:
            self._fail(f"{_wanted(kind, where, fields)} was dispatched {_times(len(found))}")

    def assert_chain_dispatched(
        self, jobs: Sequence[Job | type[Job]], *, catch: Job | type[Job] | None = None
    ) -> Dispatched[Any]:
        """Assert that a chain of just these jobs was dispatched, and return its first. A class stands for any job of
        it, a job for an equal one. Without ``catch``, any will do.

        Raises:
            AssertionError: as `assert_dispatched`.
        """
        __tracebackhide__ = True
        for each in self.dispatches:
            if _is_chain(each, jobs) and (catch is None or _is(each.catch, catch)):
                return each
        wanted = _named_chain(jobs) + (f", catch {_named(catch)}" if catch is not None else "")
        return self._fail(f"the chain {wanted} was not dispatched")

    def assert_batch_dispatched(
        self,
        jobs: Sequence[Job | type[Job] | Sequence[Job | type[Job]]],
        *,
        name: str | None = None,
        **follow_ups: Job | type[Job],
    ) -> UUID:
        """Assert that a batch of just these jobs was dispatched, in this order, and return its id. A list among them is
        a chain. ``follow_ups`` are ``then``, ``catch`` and ``finally_``; one that is left out may be any. A batch
        inside another is asserted by itself. A class stands for any job of it, a job for an equal one.

        Raises:
            AssertionError: as `assert_dispatched`.
            TypeError: there is no such follow-up.
        """
        __tracebackhide__ = True
        for wrong in follow_ups.keys() - _FOLLOW_UPS:
            raise TypeError(f"a batch has no {wrong!r}; there are: {', '.join(_FOLLOW_UPS)}")
        found = self.dispatches
        for batch_id, plan in [each for first in found for each in first.plans.items()]:
            members = [each for each in found if str(each.batch_id) == batch_id]
            ends = {each: getattr(plan, each) for each in follow_ups}
            if (
                len(members) == len(jobs)
                and all(map(_is_member, members, jobs))
                and name in (None, plan.name)
                and all(end is not None and _is(job_of(end.job), follow_ups[each]) for each, end in ends.items())
            ):
                return UUID(batch_id)
        wanted = ", ".join([*map(_named_member, jobs), *(f"{each} {_named(job)}" for each, job in follow_ups.items())])
        return self._fail(f"the batch {f'{name!r} ' if name is not None else ''}of {wanted} was not dispatched")

    def assert_nothing_dispatched(self) -> None:
        """Assert that nothing was dispatched, or all of it was rolled back.

        Raises:
            AssertionError: as `assert_dispatched`.
        """
        __tracebackhide__ = True
        if count := len(self.dispatches):
            self._fail(f"{count} job{'s were' if count > 1 else ' was'} dispatched")

    def _fail(self, what: str) -> NoReturn:
        __tracebackhide__ = True
        shown = "".join(f"\n  {each}" for each in self._recorded)
        raise AssertionError(f"{what}. Dispatched were:{shown}" if shown else f"{what}. Nothing was dispatched.")


def _is(job: Job | None, wanted: Job | type[Job]) -> bool:
    return isinstance(job, wanted) if isinstance(wanted, type) else job == wanted


def _is_chain(first: Dispatched[Any], wanted: Sequence[Job | type[Job]]) -> bool:
    if first.then is None:
        return False
    steps = (first.job, *first.then)
    return len(steps) == len(wanted) and all(map(_is, steps, wanted))


def _is_member(member: Dispatched[Any], wanted: Job | type[Job] | Sequence[Job | type[Job]]) -> bool:
    if isinstance(wanted, Sequence):
        return _is_chain(member, wanted)
    return member.then is None and _is(member.job, wanted)


def _named_member(wanted: Job | type[Job] | Sequence[Job | type[Job]]) -> str:
    return f"[{_named_chain(wanted)}]" if isinstance(wanted, Sequence) else _named(wanted)


def _named_chain(wanted: Sequence[Job | type[Job]]) -> str:
    return ", then ".join(map(_named, wanted))


def _named(wanted: Job | type[Job]) -> str:
    return wanted.__name__ if isinstance(wanted, type) else repr(wanted)


def _wanted(kind: type[Job], where: object, fields: Mapping[str, Any]) -> str:
    shown = ", ".join(f"{name}={value!r}" for name, value in fields.items())
    return f"{kind.__name__}({shown}){' where that holds' if where is not None else ''}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


class _FakedClient(ClientState):
    """A client in a fake: itself, except that its dispatches are recorded."""

    def __init__(self, inner: ClientState, recorder: Fake) -> None:
        super().__init__()
        self._inner = inner
        self._fake = self.recorder = recorder

    def around(self, inner: ClientState) -> ClientState:
        return _FakedClient(inner, self._fake) if inner.recorder is None else inner

    @property
    def events(self) -> Events | None:
        return self._inner.events

    @events.setter
    def events(self, events: Events | None) -> None:
        """Listeners are the client's own."""

    def settings(self) -> Settings:
        return self._inner.settings()

    def configure(self, given: dict[str, Any]) -> Settings:
        return self._inner.configure(given)

    def part(self, kind: type[Part]) -> Part:
        return self._inner.part(kind)


class fake(Block):  # noqa: N801 - a function to its users, as `contextlib.suppress` is
    """In the block, dispatches are recorded instead of stored: in this task, and in tasks that it starts. So they are
    in threads that run in a copy of its context, as those of `asyncio.to_thread` do.

    As a decorator, of coroutine functions as well, it is another one for each call.

    Raises:
        RuntimeError: a fake is in use here already, or this one was entered before.
    """

    def __init__(self) -> None:
        self._token: Token[ClientState] | None = None

    def __enter__(self) -> Fake:
        client = current_client()
        if client.recorder is not None:
            raise RuntimeError(_ONCE)
        if self._token is not None:
            raise RuntimeError("this fake was entered before, and its records have ended: make another with fake()")
        recorder = Fake()
        self._token = enter_client(_FakedClient(client, recorder))
        return recorder

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            leave_client(self._token)

    def again(self) -> fake:
        return fake()


@contextmanager
def fake_for_all_tasks() -> Iterator[Fake]:
    """`fake` for every task that uses the current client. A fixture and its test may run in different tasks.

    Raises:
        RuntimeError: as `fake`.
    """
    client = current_client()
    if client.recorder is not None:
        raise RuntimeError(_ONCE)
    client.recorder = recorder = Fake()
    try:
        yield recorder
    finally:
        client.recorder = None
