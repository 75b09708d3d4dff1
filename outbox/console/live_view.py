"""A view that is redrawn on the terminal's alternate screen, until q, Ctrl-C or TERM."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios
import tty
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.live import Live

_QUIT = b"qQ\x03"


async def show(
    console: Console, refresh: Callable[[], Awaitable[None]], view: Callable[[], RenderableType], interval: float
) -> None:
    """Call ``refresh`` every ``interval`` seconds, and draw ``view``. Exceptions of ``refresh`` end it."""
    await refresh()
    with _asked_to_stop() as stop, Live(view(), console=console, screen=True, auto_refresh=False) as screen:
        drawing = asyncio.ensure_future(_draw(screen, refresh, view, interval))
        stopping = asyncio.ensure_future(stop.wait())
        done, _ = await asyncio.wait({drawing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        # Leaving must not wait for a database that does not answer.
        drawing.cancel()
        stopping.cancel()
        await asyncio.gather(drawing, stopping, return_exceptions=True)
    if drawing in done:
        drawing.result()


async def _draw(
    screen: Live, refresh: Callable[[], Awaitable[None]], view: Callable[[], RenderableType], interval: float
) -> None:
    while True:
        screen.update(view(), refresh=True)
        await asyncio.sleep(interval)
        await refresh()


@contextmanager
def _asked_to_stop() -> Iterator[asyncio.Event]:
    """An event that is set by q, INT or TERM, so that the terminal is restored."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    try:
        with _keys(lambda keys: stop.set() if set(keys) & set(_QUIT) else None):
            yield stop
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


@contextmanager
def _keys(pressed: Callable[[bytes], None]) -> Iterator[None]:
    """Call ``pressed`` with every key, unbuffered and without echo, if the input is a terminal."""
    if not sys.stdin.isatty():
        yield
        return
    terminal = sys.stdin.fileno()
    loop = asyncio.get_running_loop()
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)

    def read() -> None:
        keys = os.read(terminal, 64)
        if not keys:  # the terminal is gone
            loop.remove_reader(terminal)
            keys = _QUIT
        pressed(keys)

    loop.add_reader(terminal, read)
    try:
        yield
    finally:
        loop.remove_reader(terminal)
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
