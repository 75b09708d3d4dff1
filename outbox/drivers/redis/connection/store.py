"""One Redis: commands sent to it, and sent again where that is right."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import InvalidResponse, NoScriptError, ReadOnlyError, RedisClusterException

from outbox import clock
from outbox.drivers.redis.connection.errors import SAID, Fault, RetryBudget, as_outage, classify, first_line, translate
from outbox.drivers.redis.connection.guarded import (
    ClusterClient,
    NotConnected,
    abandon,
    close_client,
    connection_failures,
)
from outbox.drivers.redis.connection.raw_connection import Exchange, drop_client
from outbox.drivers.redis.connection.url import RedisUrl
from outbox.drivers.redis.keys import QUEUES
from outbox.drivers.redis.script import Call, Script, command

T = TypeVar("T")
Work = Callable[[float | None], Awaitable[T]]


class Store:
    """Sends commands over at most ``connections`` connections at once. `Cluster` does the same for a cluster."""

    one_slot = True
    """Whether a script may touch the keys of several queues."""

    def __init__(self, address: RedisUrl, connections: int) -> None:
        self.address = address
        self.client: Any = self._connect()
        """redis-py's own, for what is not said over connections of outbox."""
        self._room = asyncio.Semaphore(connections)
        self.idle: list[Exchange] = []
        """Connections on which nothing is under way."""
        self._proven = False
        """Whether a script was run here: then the user and the server were right once, and an error of configuration is
        an outage."""

    def _connect(self) -> Redis | ClusterClient:
        return self.address.client()

    async def do(self, call: Call) -> Any:
        """Send one command, and again after a lost connection: for what may be done twice."""
        return await self.persist(lambda _: self.send(call))

    async def do_all(self, calls: Sequence[Call]) -> list[Any]:
        """The same for several commands, in one round trip where there is one server."""
        if len(calls) == 1:
            return [await self.do(calls[0])]
        return await self.persist(lambda _: self.send_all(calls))

    async def persist(self, work: Work[T], on_unclear: Callable[[], None] | None = None) -> T:
        """Run ``work``, and again after a refusal that will pass or a lost connection. It is given None, or, when an
        earlier try may have been carried out, the seconds since the first.

        ``on_unclear`` is called after each try that may have been carried out without an answer.

        Raises:
            BackendUnavailable: the server does not answer, or refused all retries.
            ConfigurationError: it refuses the user, or is not what the URL says.
        """
        budget = RetryBudget()
        begun = clock.now()
        unclear = False
        while True:
            try:
                return await work(clock.now() - begun if unclear else None)
            except asyncio.CancelledError:
                if on_unclear is not None:
                    on_unclear()
                raise
            except SAID as error:
                fault = classify(error)
                if fault is Fault.UNREACHABLE:
                    if not isinstance(error, NotConnected):
                        unclear = True
                        if on_unclear is not None:
                            on_unclear()
                    await self.start_over(error)
                if await budget.pause_after(fault):
                    continue
                translated = translate(error, str(self.address))
                if translated is None:
                    raise
                raise as_outage(translated, proven=self._proven) from error

    async def send(self, call: Call) -> Any:
        async with self._room:
            try:
                answer = await self._execute(call.words, script=call.script is not None)
            except NoScriptError:
                # The server was started anew, or another one took over.
                answer = await self._execute(call.in_full(), script=True)
        return call.checked(answer)

    async def _execute(self, words: Sequence[Any], *, script: bool) -> Any:
        if not script:
            with connection_failures():
                return await self.client.execute_command(*words)
        answer = (await self._run([words]))[0]
        if isinstance(answer, Exception):
            raise answer
        self._proven = True
        return answer

    async def send_all(self, calls: Sequence[Call]) -> list[Any]:
        if len(calls) < 2:
            return [await self.send(call) for call in calls]
        async with self._room:
            if all(call.script is not None for call in calls):
                answers = await self._run([call.words for call in calls])
            else:
                with connection_failures():
                    async with self.client.pipeline(transaction=False) as pipeline:
                        for call in calls:
                            pipeline.execute_command(*call.words)
                        answers = await pipeline.execute(raise_on_error=False)
        unknown = [position for position, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            # In one round trip as well: the first of each script makes it known to the others.
            for position, answer in zip(unknown, await self._run_anew([calls[at] for at in unknown]), strict=True):
                answers[position] = answer
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return [call.checked(answer) for call, answer in zip(calls, answers, strict=True)]

    async def _run_anew(self, calls: Sequence[Call]) -> list[Any]:
        """For scripts that the server does not know: it was started anew, or another one took over."""
        known: set[Script | None] = set()
        words = []
        for call in calls:
            words.append(call.words if call.script in known else call.in_full())
            known.add(call.script)
        async with self._room:
            return await self._run(words)

    async def _run(self, scripts: Sequence[Sequence[Any]]) -> list[Any]:
        """The answers, errors among them."""
        exchange = await self._exchange()
        try:
            answers = await exchange.ask(scripts)
        except BaseException:
            await exchange.close()
            raise
        if any(isinstance(answer, ReadOnlyError) for answer in answers):
            # It was the master once. Who is it now, a new connection finds out.
            await exchange.close()
            await self.close_idle()
        else:
            self.idle.append(exchange)
        return answers

    async def _exchange(self) -> Exchange:
        while self.idle:
            exchange = self.idle.pop()
            if not exchange.closed:
                return exchange
            await exchange.close()
        connection = self.client.connection_pool.make_connection()
        try:
            with connection_failures():
                await connection.connect()
            return Exchange(connection)
        except BaseException as error:
            await abandon(connection)
            if isinstance(error, Exception) and classify(error) is Fault.UNREACHABLE:
                raise NotConnected(first_line(error)) from error
            raise

    async def close_idle(self) -> None:
        idle, self.idle = self.idle, []
        for exchange in idle:
            await exchange.close()

    async def queues(self) -> list[str]:
        """The names of all queues that ever had a job."""

        async def ask(_: float | None) -> list[bytes]:
            names = list(await self.send(command("SMEMBERS", QUEUES)))
            if not all(isinstance(name, bytes) for name in names):
                raise InvalidResponse("the names of queues are no names")
            return names

        return sorted(name.decode() for name in await self.persist(ask))

    async def info(self) -> list[dict[str, Any]]:
        """What each server that keeps jobs says of itself."""
        return [await self.do(command("INFO"))]

    async def start_over(self, _: Exception) -> None:
        """A connection was lost. Those that are idle lead to the same server: close them."""
        await self.close_idle()
        with suppress(Exception):
            await self.client.connection_pool.disconnect(inuse_connections=False)

    def drop(self) -> None:
        """Close every connection without its event loop, which is closed."""
        idle, self.idle = self.idle, []
        for exchange in idle:
            exchange.drop()
        drop_client(self.client)

    async def close(self) -> None:
        """Raises nothing, whatever state the connections are in."""
        await self.close_idle()
        await close_client(self.client)


class Cluster(Store):
    """A Redis Cluster: every queue is in a slot of its own, and a script touches one."""

    one_slot = False

    def _connect(self) -> Redis | ClusterClient:
        return self.address.cluster()

    async def _execute(self, words: Sequence[Any], *, script: bool) -> Any:
        answer = await self.client.execute_command(*words)
        self._proven |= script
        return answer

    async def send_all(self, calls: Sequence[Call]) -> list[Any]:
        # All of them come to an end, whatever happens to one, so that none is still under way when it is repeated.
        answers = await asyncio.gather(*(self.send(call) for call in calls), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers

    async def info(self) -> list[dict[str, Any]]:
        async def ask(_: float | None) -> dict[str, dict[str, Any]]:
            found: dict[str, dict[str, Any]] = await self.client.info(target_nodes=RedisCluster.PRIMARIES)
            return found

        found = await self.persist(ask)
        return [found] if "redis_version" in found else list(found.values())

    async def start_over(self, error: Exception) -> None:
        """The client looks for the nodes anew by itself, until it has given up all that it was told of: then there is
        another one."""
        if isinstance(error, RedisClusterException):
            given_up, self.client = self.client, self._connect()
            await given_up.aclose()

    async def close(self) -> None:
        await self.client.aclose()


def open_store(url: str, connections: int) -> Store:
    """
    Raises:
        ConfigurationError: it is not the URL of a Redis.
    """
    address = RedisUrl.parse(url)
    return Cluster(address, connections) if address.is_cluster else Store(address, connections)
