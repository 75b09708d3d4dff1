"""All queues, and one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from markupsafe import Markup
from starlette.responses import Response

from outbox.drivers.filters import JobFilter
from outbox.drivers.pauses import Pause, PauseKind
from outbox.errors import InvalidOption
from outbox.options import check_queue
from outbox.relay.route import relayed_connection
from outbox.web import charts
from outbox.web.trends import Trend, time_to_clear
from outbox.web.values import Queue
from outbox.web.view import View

_FIRST_JOBS = 20


async def show_all(view: View) -> Response:
    answers = await view.readings.queues.all()
    trends = (await view.readings.trends.all()).found
    return view.page(
        "queues.html",
        "Queues",
        topics=("queues", "workers"),
        queues=answers.found,
        errors=answers.errors,
        several=len(view.readings.connections) > 1,
        sparkline=sparklines(trends),
    )


def sparklines(trends: Mapping[str, Trend]) -> Callable[[Queue], Markup]:
    """Draws the last day of a queue."""

    def draw(queue: Queue) -> Markup:
        trend = trends.get(queue.connection)
        return Markup() if trend is None else charts.sparkline(trend.of(queue=queue.counts.queue))

    return draw


def queue_of(text: str) -> str:
    """
    Raises:
        InvalidOption: no queue can have this name.
    """
    if relayed_connection(text) is not None and len(text) <= 65:
        return text
    try:
        return check_queue(text)
    except InvalidOption:
        raise InvalidOption(f"a queue's name is 1 to 64 of a-z 0-9 . _ -, not {text[:70]!r}") from None


async def show_one(view: View) -> Response:
    connection, name = view.connection(), queue_of(view.request.path_params["queue"])
    queue = await view.readings.queues.get(connection, name)
    first = await view.readings.jobs.page(connection, JobFilter(queue=name), _FIRST_JOBS, None)
    trend = (await view.readings.trends.of(connection)).of(queue=name)
    slots = sum(worker.concurrency for worker in queue.workers)
    pauses = [pause for pause in await view.readings.pauses.of(connection) if _keeps(pause, name)]
    return view.page(
        "queue.html",
        f"Queue {name}",
        topics=("jobs",),
        queue=queue,
        first=first,
        connection=connection,
        slots=slots,
        time_to_clear=time_to_clear(trend, queue.counts.ready, slots),
        charts=(*charts.throughput(trend), *charts.durations(trend)),
        last_hour=trend.last_hour,
        pauses=pauses,
        now=first.now,
    )


def _keeps(pause: Pause, queue: str) -> bool:
    return pause.kind is PauseKind.CONNECTION or pause.target == (PauseKind.QUEUE, queue)
