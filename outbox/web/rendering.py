"""Pages from templates. Every value of a store is escaped, and its control characters are made visible."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from outbox.console.formatting import age, block, counted, due, line, mebibytes, queue_name
from outbox.drivers.values import JobState
from outbox.ids import new_job_id
from outbox.web.sent_forms import FIELD

HERE = Path(__file__).parent
STATIC = HERE / "static"
_BAR_HEIGHT = 20

_STATES = {
    JobState.READY.value: "clock",
    JobState.DELAYED.value: "hourglass",
    JobState.RETRYING.value: "rotate-ccw",
    JobState.RESERVED.value: "play",
    JobState.PARKED.value: "circle-pause",
    "failed": "circle-x",
    "paused": "circle-pause",
    "running": "play",
    "alive": "circle-check",
    "silent": "triangle-alert",
    "quiet": "circle-pause",
    "stopping": "circle-pause",
    "active": "circle-check",
    "vanished": "triangle-alert",
    "over": "circle-check",
    "open": "play",
    "finished": "circle-check",
    "cancelled": "circle-x",
    "ok": "circle-check",
    "info": "info",
    "warning": "triangle-alert",
    "problem": "circle-x",
    "blocked": "circle-x",
    "waiting": "clock",
    "stopped": "circle-pause",
}
"""The icon of each state, beside its word."""


@lru_cache(maxsize=200)
def icon(name: str) -> Markup:
    """An icon of Lucide, for the eye only: a word stands beside it."""
    text = (STATIC / "icons" / f"{name}.svg").read_text()
    body = text[text.index("<svg") :]
    start = body.index(">", body.index("<svg")) + 1
    paths = body[start : body.rindex("</svg>")]
    return Markup(  # noqa: S704 - a file of this package
        '<svg class="icon" viewBox="0 0 24 24" width="16" height="16" fill="none" stroke="currentColor" '
        f'stroke-width="2" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">{paths}</svg>'
    )


def state(word: str) -> Markup:
    """A state as a word with its icon and colour."""
    return Markup('<span class="state {0}">{1}{0}</span>').format(word, icon(_STATES[word]))


def moment(when: datetime, now: datetime) -> Markup:
    """A relative time, with the exact one for the pointer and for screen readers."""
    exact = f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(when.isoformat(), exact, due(when, now))


def seconds_ago(seconds: float, now: datetime) -> Markup:
    return moment(now - timedelta(seconds=seconds), now)


def seconds(value: float) -> str:
    """A duration that may be shorter than a second."""
    if value < 1:
        return f"{value * 1_000:,.0f} ms"
    return f"{value:.1f} s" if value < 10 else age(value)


def hourly_bars(values: Sequence[int], label: str) -> Markup:
    """Bars for ``values``, the highest as high as the line. ``label`` says them in words."""
    most = max(1, *values)
    bars = "".join(
        f"M{2 * place + 1} {_BAR_HEIGHT}v-{max(1, round(_BAR_HEIGHT * value / most))}"
        for place, value in enumerate(values)
        if value
    )
    return Markup(
        '<svg class="hourly" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<path d="{}" fill="none" stroke="currentColor" stroke-width="1.4"/></svg>'
    ).format(2 * len(values), _BAR_HEIGHT, label, bars)


def exact(when: datetime) -> str:
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def number(value: float) -> str:
    return f"{value:,.0f}"


def with_query(path: str, values: dict[str, Any]) -> str:
    """``path`` with parameters; empty ones are left out."""
    given = {name: str(value) for name, value in values.items() if value not in (None, "")}
    return path + (f"?{urlencode(given)}" if given else "")


def segment(text: str) -> str:
    """A part of a path."""
    return quote(text, safe="")


@lru_cache(maxsize=1)
def assets_version() -> str:
    """Changes with the files that browsers keep."""
    digest = hashlib.sha256()
    for file in sorted(STATIC.rglob("*")):
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def form_field() -> Markup:
    """The hidden field that lets a form be sent once."""
    return Markup('<input type="hidden" name="{}" value="{}">').format(FIELD, new_job_id())


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        age=age,
        block=block,
        exact=exact,
        line=line,
        mebibytes=mebibytes,
        number=number,
        queue_name=queue_name,
        seconds=seconds,
        segment=segment,
    )
    environment.globals.update(
        icon=icon,
        state=state,
        moment=moment,
        seconds_ago=seconds_ago,
        hourly_bars=hourly_bars,
        counted=counted,
        with_query=with_query,
        form_field=form_field,
        assets=assets_version,
    )
    return environment


templates = _environment()
