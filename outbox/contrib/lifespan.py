"""A lifespan for ASGI applications: FastAPI, Starlette, Litestar."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from outbox.embedded_worker import Worker
from outbox.open_drivers import disconnect

Lifespan = Callable[[Any], AbstractAsyncContextManager[None]]


def outbox_lifespan(*, worker: bool = False, **options: Any) -> Lifespan:
    """``FastAPI(lifespan=outbox_lifespan(worker=True))``, ``Litestar(lifespan=[outbox_lifespan()])``.

    With ``worker``, jobs run in the application's process while it serves: for development, and small applications.
    ``options`` are those of `outbox.Worker`; without a worker, they say nothing. When the application ends, its worker
    stops in order, and the connections that dispatches have opened are closed.

    Raises:
        ConfigurationError: when the application starts, as `outbox.Worker`.
    """

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        try:
            if worker:
                async with Worker(**options):
                    yield
            else:
                yield
        finally:
            await disconnect()

    return lifespan
