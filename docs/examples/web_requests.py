"""Jobs of a web application that run in a request, or are dispatched after its response."""

from fastapi import FastAPI

from outbox import Job, dispatch_now
from outbox.contrib.starlette import AfterResponse, after_response


class Quote(Job):
    timeout = 2

    product: str

    async def handle(self) -> int:
        return 900


class CountVisit(Job):
    queue = "statistics"

    product: str

    async def handle(self) -> None: ...


app = FastAPI()
app.add_middleware(AfterResponse)


@app.get("/products/{product}")
async def show(product: str) -> dict[str, int]:
    price = await dispatch_now(Quote(product=product))  # runs here, with its timeout and middleware
    after_response(CountVisit(product=product))  # is stored when the response has been sent
    return {"price": price}
