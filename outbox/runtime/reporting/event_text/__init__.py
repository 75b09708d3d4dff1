"""What each event says to people: how serious it is, one word, and one line."""

from outbox.runtime.reporting.event_text import (
    connections,
    jobs,
    operators,
    policies,
    schedules,
    settlements,
    supervisor,
    worker,
)
from outbox.runtime.reporting.event_text.base import LOG_LEVELS as LOG_LEVELS
from outbox.runtime.reporting.event_text.base import EventText as EventText
from outbox.runtime.reporting.event_text.base import Level as Level
from outbox.runtime.reporting.event_text.base import describe as describe
from outbox.runtime.reporting.event_text.phrases import one_line as one_line
from outbox.runtime.reporting.event_text.worker import banner as banner

SUBJECTS = (connections, jobs, operators, policies, schedules, settlements, supervisor, worker)
"""Importing one of these registers its texts with `describe`."""
