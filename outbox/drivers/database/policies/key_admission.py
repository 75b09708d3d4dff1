"""A claim's candidates with keys: which run, which are parked, and what is parked with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter

from outbox.drivers.database.chunks import chunked
from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.policies import job_rows
from outbox.drivers.database.policies import key_statements as statements
from outbox.drivers.database.policies.base import RUN, Candidate, Leave, Park, Run, Skip, Verdict
from outbox.drivers.database.policies.key_release import Wanted, forget_removed, let_in, release
from outbox.drivers.database.policies.key_statements import KeyedRow
from outbox.ids import JobId
from outbox.policies import keys
from outbox.policies.keys import Facts, Kind, OnFull, State, Turn

_PORTION = 2_000
"""Jobs of keys without room that one claim parks."""

_REPLACE_RUNNING = OnFull.REPLACE_RUNNING
_ORDERING, _CONCURRENCY, _FAIR = Kind.ORDERING, Kind.CONCURRENCY, Kind.FAIR
_HELD, _LET_IN, _PARK = State.HELD, State.LET_IN, Turn.PARK
"""Python 3.11 finds a member of an enumeration by calling a function; these are for every job with a key."""


class Admission:
    """One claim's decisions about keys."""

    def __init__(self, dialect: Dialect, candidates: Sequence[Candidate]) -> None:
        self._dialect = dialect
        self._by_id = {bytes(each.row.id): each for each in candidates}
        self._verdicts: dict[bytes, Verdict] = dict.fromkeys(self._by_id, RUN)
        self._states: dict[int, State] = {}
        """What becomes of rows."""
        self._limits: Mapping[bytes, int] = {}
        self._full: list[bytes] = []
        """Keys of which jobs were parked."""
        self._behind: dict[int, list[KeyedRow]] = {}
        """Rows of ordering keys, by the sequence of the first job of the key, which this claim has not found."""

    def decide(self) -> Plan[Mapping[JobId, Verdict]]:
        hashes = {job_id: statements.hashes_of(each.headers) for job_id, each in self._by_id.items()}
        # Before the locks, for which others wait: what changes these rows has locked their jobs first.
        rows = yield from statements.rows_of(self._dialect, list(self._by_id))
        self._limits = yield from statements.limits_of(self._dialect, [each.headers for each in self._by_id.values()])
        slots = yield from statements.lock_slots(
            self._dialect, [key for each in hashes.values() for key in each], wait=False
        )
        for job_id, mine in hashes.items():
            if not all(statements.in_slots(key, slots) for key in mine):
                self._verdicts[job_id] = Leave()
        running = set(self._running())
        rows = [row for row in rows if row.job_id in running]
        facts = yield from statements.facts_of(
            self._dialect, [(row.key, row.kind) for row in rows], statements.TO_DECIDE
        )
        for group in self._groups(rows, _ORDERING):
            yield from self._decide_order(group, facts[group[0].key])
        for group in self._groups(rows, _CONCURRENCY):
            yield from self._decide_limit(group, facts[group[0].key])
        yield from self._leave_behind_removed()
        yield from self._sweep(sorted(set(self._full)))
        yield from self._decide_turns(rows, facts)
        yield from self._write(rows)
        yield from self._pass_on(rows)
        return {self._by_id[job_id].job_id: verdict for job_id, verdict in self._verdicts.items()}

    def _running(self) -> Iterable[bytes]:
        return [job_id for job_id, verdict in self._verdicts.items() if isinstance(verdict, Run)]

    def _groups(self, rows: Sequence[KeyedRow], kind: Kind) -> list[list[KeyedRow]]:
        """The rows of candidates that may still run, by key and in the order of places."""
        mine = [row for row in rows if row.kind is kind]
        if not mine:
            return []
        running = set(self._running())
        groups: dict[bytes, list[KeyedRow]] = {}
        for row in sorted(mine, key=attrgetter("place_text")):
            if row.job_id in running:
                groups.setdefault(row.key, []).append(row)
        return list(groups.values())

    def _decide_order(self, rows: list[KeyedRow], facts: Facts) -> Plan[None]:
        turns = keys.in_order(_asked(rows), facts)
        self._refuse(rows, turns)
        if Turn.RUN in turns or facts.held or facts.blocked:
            if Turn.PARK in turns:
                self._full.append(rows[0].key)
        elif Turn.LEAVE in turns:
            # The first is parked, and nothing will let it in but this.
            yield from release(self._dialect, [Wanted(rows[0].key, Kind.ORDERING, 1)], {rows[0].key: facts})
        elif facts.first_waiting is not None:
            self._behind[facts.first_waiting.seq] = rows

    def _leave_behind_removed(self) -> Plan[None]:
        """An application may have removed the first job of a key: the next claim finds those behind it. All keys at
        once, because a claim may meet hundreds of them."""
        if self._behind:
            firsts = yield from statements.jobs_at(list(self._behind))
            for seq in (yield from forget_removed(self._dialect, firsts)):
                rows = self._behind[seq]
                self._refuse(rows, [Turn.LEAVE] * len(rows))

    def _decide_limit(self, rows: list[KeyedRow], facts: Facts) -> Plan[None]:
        """Each job by its own options: a dispatch can override those of the class."""
        replacing = [row for row in rows if self._on_full(row) is _REPLACE_RUNNING]
        others = [row for row in rows if row not in replacing] if replacing else rows
        turns = keys.within_limit(others, facts, [self._limit(row) for row in others])
        for row, turn in zip(others, turns, strict=True):
            if turn is not _PARK:
                continue
            if self._on_full(row) is OnFull.SKIP:
                self._verdicts[row.job_id] = Skip(f"its concurrency key {self._name(row)} is full")
            else:
                self._refuse([row], [turn])
                self._full.append(row.key)
        if replacing:
            started = sum(
                turn is Turn.RUN and row.state is not State.HELD for row, turn in zip(others, turns, strict=True)
            )
            yield from self._replace(replacing, facts._replace(held=facts.held + started), self._limit(replacing[-1]))

    def _limit(self, row: KeyedRow) -> int:
        return self._limits.get(row.key, row.size)

    def _on_full(self, row: KeyedRow) -> OnFull:
        header = self._by_id[row.job_id].headers.keys
        return OnFull.WAIT if header is None or header.concurrency is None else header.concurrency.on_full

    def _replace(self, rows: list[KeyedRow], facts: Facts, limit: int) -> Plan[None]:
        """The newest run. Those that run already are cancelled, the oldest first."""
        newest = [row for row in rows if row.state is not State.HELD]
        for row in newest[:-limit]:
            self._verdicts[row.job_id] = Skip(f"a newer job of the concurrency key {self._name(row)} replaces it")
        starting = newest[-limit:]
        over = facts.held + len(starting) - limit
        if over <= 0:
            return
        oldest = yield from statements.held(self._dialect, rows[0].key, over)
        locked = yield from job_rows.lock_jobs(self._dialect, [each.job_id for each in oldest])
        if len(locked) < over:
            # They are ending at this moment, or an application has removed them.
            yield from forget_removed(self._dialect, [each for each in oldest if each.job_id not in locked])
            self._refuse(starting, [Turn.LEAVE] * len(starting))
            return
        self._verdicts[starting[-1].job_id] = Run(replaces=tuple(JobId(bytes=each) for each in locked))

    def _decide_turns(self, rows: Sequence[KeyedRow], facts: Mapping[bytes, Facts]) -> Plan[None]:
        """A job that had its turn and that another key has parked gives it back: the job that it waits for may be of
        the same tenant, and wait for a turn."""
        given = self._let_in_and_parked(rows, _FAIR)
        yield from statements.set_state([row.seq for row in given], State.WAITING)
        left = dict(facts)
        for row in given:
            left[row.key] = left[row.key]._replace(let_in=left[row.key].let_in - 1)
        groups = self._groups(rows, _FAIR)
        for group in groups:
            yield from self._decide_fair(group, left[group[0].key])
        decided = {group[0].key for group in groups}
        others = [row for row in given if row.key not in decided]
        if others:
            yield from self._let_in(others)

    def _let_in_and_parked(self, rows: Sequence[KeyedRow], kind: Kind) -> list[KeyedRow]:
        """Rows of jobs that this key has let in, and that another one has parked."""
        return [
            row
            for row in rows
            if row.kind is kind
            and row.state is _LET_IN
            and row.seq not in self._states
            and self._verdicts[row.job_id] == Park()
        ]

    def _decide_fair(self, rows: list[KeyedRow], facts: Facts) -> Plan[None]:
        """A key has a round of jobs in reach of claims; the others are parked, and let in when it is through."""
        key, round_ = rows[0].key, rows[0].size * keys.ROUND
        waiting = [row for row in rows if row.state is State.WAITING]
        room = 0 if facts.first_parked else max(0, round_ - facts.let_in)
        over = waiting[room:]
        crowded = bool(over)
        if not over and facts.first_parked is None:
            some = yield from statements.due_waiting(self._dialect, [key], len(waiting) + round_ + 1)
            crowded = len(some) > len(waiting) + round_
        if crowded and (yield from self._sweep([key])) > _PORTION:
            # Jobs of other keys may be behind them: after a first round, none runs until all of them are parked.
            self._refuse(over, [Turn.PARK] * len(over))
            return
        missing = round_ - facts.let_in + (len(rows) - len(waiting))
        if not (crowded or facts.first_parked) or 2 * missing < round_:
            self._refuse(over, [Turn.PARK] * len(over))
            return
        if facts.first_parked is not None:
            missing -= yield from self._release_round(key, missing, facts)
        for row in over[:missing]:
            self._verdicts[row.job_id] = Park(0.0)
            self._states[row.seq] = State.LET_IN
        self._refuse(over[missing:], [Turn.PARK] * len(over[missing:]))
        if facts.first_parked is None and missing > len(over):
            yield from self._release_round(key, missing - len(over), facts)

    def _release_round(self, key: bytes, count: int, facts: Facts) -> Plan[int]:
        return len((yield from release(self._dialect, [Wanted(key, Kind.FAIR, count)], {key: facts})).job_ids)

    def _refuse(self, rows: Sequence[KeyedRow], turns: Sequence[Turn]) -> None:
        for row, turn in zip(rows, turns, strict=True):
            if turn is Turn.LEAVE:
                self._verdicts[row.job_id] = Leave()
                self._states.pop(row.seq, None)
            elif turn is Turn.PARK:
                self._verdicts[row.job_id] = Park()
                self._states[row.seq] = State.PARKED

    def _name(self, row: KeyedRow) -> str:
        header = self._by_id[row.job_id].headers.keys
        return "" if header is None or header.concurrency is None else f"`{header.concurrency.name}`"

    def _sweep(self, full: Sequence[bytes]) -> Plan[int]:
        """Park also what claims have not yet found of keys that have no room, except what another key has let in: the
        claim that finds it gives its place to others. Returns how many there were, at most one more than it parks; 0
        where claims find none of them, because other keys have parked them."""
        if not full:
            return 0
        more = yield from statements.due_waiting(self._dialect, full, _PORTION + len(self._by_id) + 1)
        others = {each.job_id: each.seq for each in more if each.job_id not in self._by_id}
        locked = yield from job_rows.lock_unheld(self._dialect, list(others)[:_PORTION])
        if self._have_several_keys():
            elsewhere = yield from statements.in_state(self._dialect, locked, _LET_IN)
            locked = [job_id for job_id in locked if job_id not in elsewhere]
        for some in chunked(locked):
            yield self._dialect.park(len(some)), tuple(some)
        yield from statements.set_state([others[job_id] for job_id in locked], State.PARKED)
        return len(others) if locked else 0

    def _have_several_keys(self) -> bool:
        """Whether a candidate has: others of these keys probably have several, too. Upkeep finds what this misses."""
        return any(len(statements.hashes_of(each.headers)) > 1 for each in self._by_id.values())

    def _write(self, rows: Sequence[KeyedRow]) -> Plan[None]:
        running = set(self._running())
        ended = [row.seq for row in rows if row.kind is _FAIR and row.job_id in running]
        for row in rows:
            if row.kind is not _FAIR and row.state is not _HELD and row.job_id in running:
                self._states[row.seq] = _HELD
        for state in sorted(set(self._states.values())):
            yield from statements.set_state([seq for seq, new in self._states.items() if new is state], state)
        yield from statements.delete_rows(ended)

    def _pass_on(self, rows: Sequence[KeyedRow]) -> Plan[None]:
        """Others have the place of a job that another key has parked: they would wait for it."""
        given = self._let_in_and_parked(rows, _CONCURRENCY)
        if given:
            yield from statements.set_state([row.seq for row in given], State.WAITING)
            yield from self._let_in(given)

    def _let_in(self, given: Sequence[KeyedRow]) -> Plan[None]:
        released = yield from let_in(self._dialect, given, [self._by_id[row.job_id].headers for row in given])
        for job_id in released.job_ids:
            if job_id in self._verdicts:
                # This claim has parked it, and nothing else will let it in.
                self._verdicts[job_id] = Park(0.0)


def _asked(rows: Sequence[KeyedRow]) -> list[keys.Candidate]:
    return [keys.Candidate(row.place, row.state) for row in rows]
