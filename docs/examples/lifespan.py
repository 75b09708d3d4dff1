"""A worker in the process of a web application: `uvicorn lifespan:app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

import outbox


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with outbox.Worker(queue="mail,default", concurrency=10):
        yield


app = FastAPI(lifespan=lifespan)
