"""The contract of services, and the seams beside them."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from outbox.errors import ConfigurationError
from outbox.events import Events
from outbox.runtime.process import reload, worker_process
from outbox.runtime.process.exit_codes import Reason
from outbox.runtime.process.reload import Reloader
from outbox.runtime.process.supervisor import Supervisor
from outbox.runtime.service import BackgroundLoop, Together
from outbox.runtime.worker import Ended
from outbox.wakeups.polling import Polling


class Loop(BackgroundLoop):
    def __init__(self) -> None:
        super().__init__()
        self.runs = 0

    async def run(self) -> None:
        self.runs += 1
        await self.pause(60)


async def test_a_service_is_safe_in_any_state() -> None:
    service = Loop()
    await service.start()
    await service.start()
    await asyncio.sleep(0)
    await service.stop()
    await service.stop()
    await service.start()
    assert service.runs == 1
    never = Loop()
    await never.stop()
    await never.start()
    assert never.runs == 0


async def test_stop_waits_and_never_cancels() -> None:
    class InACall(BackgroundLoop):
        finished = False

        async def run(self) -> None:
            await self.pause(60)
            await asyncio.sleep(0.05)  # a database call
            self.finished = True

    service = InACall()
    await service.start()
    await asyncio.sleep(0)
    await service.stop()
    assert service.finished


async def test_a_crash_that_nobody_watches_for_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Crashes(BackgroundLoop):
        async def run(self) -> None:
            raise ZeroDivisionError

    service = Crashes()
    await service.start()
    await asyncio.sleep(0.01)
    await service.stop()
    assert "Crashes failed" in caplog.text


class InTurn(BackgroundLoop):
    """Is told how long it would sleep."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []

    async def run(self) -> None: ...

    async def pause(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        return True


async def pauses_in_turn(workers: int) -> tuple[float, float]:
    """The first pause of a loop and the second, of a second for each worker."""
    loop = InTurn()
    for _ in range(2):
        assert await loop.pause_in_turn(1.0, lambda: workers)
    first, second = loop.pauses
    return first, second


async def test_workers_that_start_together_take_turns_from_the_beginning() -> None:
    """Else a fleet of 50, restarted every half hour, would never come to what it does once a minute."""
    pauses = [await pauses_in_turn(workers=100) for _ in range(200)]
    early = [first for first, _ in pauses if first < 50]
    assert 50 < len(early) < 150
    assert min(first for first, _ in pauses) < 20
    assert all(69 < second <= 100 for _, second in pauses)


async def test_the_first_turn_of_a_lone_worker_is_as_late_as_its_others() -> None:
    for _ in range(100):
        assert all(0.69 < pause <= 1.0 for pause in await pauses_in_turn(workers=1))


async def test_polling_sleeps_until_its_time_or_until_woken() -> None:
    polling = Polling()
    began = time.monotonic()
    assert not await polling.wait(0.05)
    assert time.monotonic() - began >= 0.04
    polling.wake()
    await asyncio.sleep(0)
    assert await polling.wait(60), "a wake-up before the wait counts"
    asyncio.get_running_loop().call_later(0.01, polling.wake)
    assert await polling.wait(60)
    assert not await polling.wait(0.01), "each wake-up counts once"


async def test_a_wakeup_before_anybody_ever_waited_counts() -> None:
    polling = Polling()
    polling.wake()
    assert await polling.wait(60)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_task_that_exits_does_not_end_the_worker(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    class Worker:
        async def run(self) -> Ended:
            async def exits() -> None:
                raise SystemExit(7)

            tasks = [asyncio.create_task(exits()), asyncio.create_task(exits())]
            await asyncio.sleep(0.05)
            assert [type(task.exception()) for task in tasks] == [SystemExit, SystemExit]
            return Ended(Reason.SIGNAL, None, 0)

    loop = new_loop()
    assert worker_process.run_until_ended(loop, Worker()).reason is Reason.SIGNAL  # type: ignore[arg-type]
    loop.close()


async def test_reload_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload, "find_spec", lambda _: None)
    supervisor = Supervisor([sys.executable], 1, Events())
    with pytest.raises(ConfigurationError, match=r"pip install 'outbox-queue\[reload\]'"):
        Reloader(supervisor, Events(), Path())


async def test_services_of_several_connections_stop_at_the_same_time() -> None:
    """One whose store hangs must not keep the others claiming."""
    hangs, asked = asyncio.Event(), asyncio.Event()

    class Hanging:
        async def start(self) -> None: ...

        async def stop(self) -> None:
            await hangs.wait()

    class Other(Hanging):
        async def stop(self) -> None:
            asked.set()

    for services in ([Hanging(), Other()], [Other(), Hanging()]):
        together = Together(services)
        await together.start()
        hangs.clear()
        asked.clear()
        stopping = asyncio.create_task(together.stop())
        await asked.wait()
        assert not stopping.done()
        hangs.set()
        await stopping
