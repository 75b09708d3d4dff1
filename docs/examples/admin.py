"""The dashboard in a web application: `uvicorn admin:app`, then /outbox."""

import os
import secrets

from fastapi import FastAPI
from starlette.requests import Request

from outbox import Job
from outbox.web import Viewer, dashboard


class Welcome(Job):
    queue = "mail"
    redact = ["email"]  # hidden in payloads and in the text of errors

    email: str

    async def handle(self) -> None: ...


SESSIONS = {os.environ.get("SHOP_SESSION", secrets.token_hex()): ("ada", "operator")}


async def auth(request: Request) -> Viewer | None:
    user = SESSIONS.get(request.cookies.get("session", ""))
    if user is None:
        return None  # not signed in: the page says so
    name, role = user
    return Viewer(name, may=role)


app = FastAPI()
app.mount("/outbox", dashboard(auth=auth))
