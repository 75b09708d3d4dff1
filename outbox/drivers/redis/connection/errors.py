"""What the errors of Redis mean, and how long to go on trying."""

from __future__ import annotations

import asyncio
import random
from enum import Enum

from redis import exceptions

from outbox.drivers.redis.connection.guarded import NotConnected
from outbox.errors import BackendUnavailable, ConfigurationError, OutboxError, RequestRefused

_ATTEMPTS = 8
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.5

# What a server says that will soon be able to, by the word with which its answer begins: BUSY is another client's
# endless script, MASTERDOWN and NOREPLICAS a failover, CLUSTERDOWN and TRYAGAIN a cluster that moves slots.
_FOR_NOW = ("LOADING", "BUSY ", "READONLY", "MASTERDOWN", "NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN", "UNBLOCKED")
_ACCESS = (
    exceptions.AuthenticationError,
    exceptions.AuthorizationError,
    exceptions.AuthenticationWrongNumberOfArgsError,
    exceptions.NoPermissionError,
)


SAID = (exceptions.RedisError, exceptions.RedisClusterException, OSError, EOFError)
"""What a server, or the way to it, can say instead of an answer."""

# What a server says of the question, or of its configuration: the same again is refused again. Everything else is taken
# for an outage, because a proxy whose servers are away has words of its own for that.
_FINAL = ("WRONGTYPE", "CROSSSLOT", "MOVED", "ASK ", "NOPERM", "NOAUTH", "WRONGPASS", "EXECABORT", "NOPROTO")
_FINAL_WORDS = (
    "unauthenticated",
    "unknown command",
    "unsupported command",
    "unknown subcommand",
    "wrong number of arguments",
    "syntax error",
    "DB index",
    "user_script",
    "Error running script",
    "Error compiling script",
    "Script attempted to access",
    "is not an integer",
    "is not a valid float",
    "Protocol error",
)

_NO_CLUSTER = ("cluster support disabled", "Cluster mode is not enabled")


class Fault(Enum):
    REFUSED = "refused"
    """The server changed nothing and says that it soon will be able to."""
    FULL = "full"
    """Its memory is used up, or it cannot write to its disk. It changed nothing, and will not until an operator
    helps."""
    UNREACHABLE = "unreachable"
    """The connection is gone; what was asked may have been done."""
    OTHER = "other"


def classify(error: BaseException) -> Fault:
    if isinstance(error, _ACCESS):
        return Fault.OTHER
    said = first_line(error)
    if isinstance(error, exceptions.OutOfMemoryError) or said.startswith(("OOM ", "MISCONF")):
        return Fault.FULL
    known = (exceptions.BusyLoadingError, exceptions.ReadOnlyError, exceptions.ClusterDownError)
    if isinstance(error, known) or said.startswith(_FOR_NOW):
        return Fault.REFUSED
    if isinstance(error, exceptions.RedisClusterException):
        # No node that it knows answers, or none that has the slot.
        return Fault.OTHER if any(words in said for words in _NO_CLUSTER) else Fault.UNREACHABLE
    if isinstance(error, (exceptions.InvalidResponse, NotConnected)):
        # hiredis uses the words of a server that refuses a command.
        return Fault.UNREACHABLE
    if isinstance(error, exceptions.DataError) or said.startswith(_FINAL) or any(each in said for each in _FINAL_WORDS):
        return Fault.OTHER
    # The client's own errors, and whatever else a server, or a proxy in front of one, says in place of an answer.
    return Fault.UNREACHABLE if isinstance(error, SAID) else Fault.OTHER


def translate(error: BaseException, where: str) -> OutboxError | None:
    """The error of outbox for an error of Redis, or None where there is no better word than its own."""
    said = first_line(error)
    fault = classify(error)
    if fault is Fault.FULL:
        return RequestRefused(f"{where} {_why_full(said)}")
    if fault is not Fault.OTHER:
        return BackendUnavailable(f"{where} does not answer: {said}")
    # Without a password where one is needed, it already refuses a command of more than ten words.
    if isinstance(error, _ACCESS) or "unauthenticated" in said:
        return ConfigurationError(f"{where} refuses this user: {said}: see the user and the password in REDIS_URL")
    if "DB index" in said:
        return ConfigurationError(
            f"{where}: {said}: the number at the end of REDIS_URL is over the server's `databases`"
        )
    if said.startswith(("MOVED", "CROSSSLOT")):
        return ConfigurationError(f"{where} is a Redis Cluster: write REDIS_URL=redis+cluster://host:port")
    if any(words in said for words in _NO_CLUSTER):
        return ConfigurationError(f"{where} is not a Redis Cluster: write REDIS_URL=redis://host:port/0")
    if "unknown command" in said and "EVALSHA" in said.upper():
        return ConfigurationError(f"{where} runs no Lua scripts ({said}): outbox needs EVALSHA and EVAL")
    return None


def as_outage(error: OutboxError, *, proven: bool) -> OutboxError:
    """``error``, or what it is for a user and a server that were ``proven`` to be right: they may be again."""
    wrong = isinstance(error, ConfigurationError) and proven
    return RequestRefused(str(error)) if wrong else error


def _why_full(said: str) -> str:
    if said.startswith("MISCONF"):
        return f"refuses writes because it cannot save to its disk, so nothing was stored: {said}"
    return (
        "has used up its maxmemory, so nothing was stored: let workers drain it, which they still can, or raise "
        f"maxmemory ({said})"
    )


def first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]


class RetryBudget:
    """Bounded retries of one piece of work: about two seconds for a server that is about to be able to, one
    reconnection for a lost connection.

    A worker's loop must not give up: it catches `BackendUnavailable` and starts over at its own pace.
    """

    def __init__(self) -> None:
        self._tried = 0
        self._reconnected = False

    async def pause_after(self, fault: Fault) -> bool:
        """Whether to try again; if so, after having waited."""
        self._tried += 1
        if fault in {Fault.OTHER, Fault.FULL} or self._tried >= _ATTEMPTS:
            return False
        if fault is Fault.UNREACHABLE:
            again, self._reconnected = not self._reconnected, True
            return again
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**self._tried)
        await asyncio.sleep(random.uniform(longest / 2, longest))  # noqa: S311 - spreads load, guards nothing
        return True
