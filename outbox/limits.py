"""Rate limits outside jobs: ``await limits.take("mailgun")``."""

from __future__ import annotations

import asyncio
from typing import Any

from outbox import clock
from outbox.drivers.base import Driver, LimitStore
from outbox.errors import ConfigurationError, InvalidOption
from outbox.open_drivers import driver_here
from outbox.policies.rate import Window
from outbox.policies.rate_limits import Terms, check_cost, check_name, defined, defined_names, key_text, of_class
from outbox.registry import is_registered, resolve
from outbox.settings import DATABASE

_SHORTEST = 0.001


async def take(
    name: str,
    cost: int = 1,
    *,
    key: Any = None,
    timeout: float | None = None,  # noqa: ASYNC109 - what it bounds is the wait for the limit, not a call
    connection: str = DATABASE,
) -> bool:
    """Take ``cost`` (1 to 1,000,000) from the rate limit ``name``: that of a `RateLimit`, or of a job whose class has a
    rate of its own. It waits until the limit admits it.

    ``key`` is a value of the ``rate_key`` of jobs: of its field, or what its method returns. ``timeout`` is the longest
    wait in seconds, 0 for none: where the limit does not admit it in this time, nothing is taken and the answer is
    False. ``connection`` names a database.

    Raises:
        ConfigurationError: there is no such limit, or the connection keeps none.
        InvalidOption: an argument is of a wrong type or out of its range.
        BackendUnavailable: the database does not answer.
    """
    check_cost(cost)
    text = key_text(key)
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout < 0):
        raise InvalidOption(f"a timeout is a number of seconds, not negative, not {timeout!r}")
    store = limits_of(driver_here(connection))
    terms = await _terms(store, check_name(name))
    if isinstance(limit := terms.limit, Window) and cost > limit.count:
        raise InvalidOption(f"the limit {name} ({terms.rate} by the {terms.align}) never admits a cost of {cost:,}")
    end = None if timeout is None else clock.now() + timeout
    while wait := await store.take(terms, cost, text):
        if end is not None and clock.now() + wait > end:
            return False
        await asyncio.sleep(max(wait, _SHORTEST))
    return True


def limits_of(driver: Driver) -> LimitStore:
    """
    Raises:
        ConfigurationError: the connection keeps no limits.
    """
    if driver.limits is None:
        raise ConfigurationError(f"limits are kept by a database, not by the connection {driver.name}")
    return driver.limits


async def _terms(store: LimitStore, name: str) -> Terms:
    known = defined(name)
    if known is None and is_registered(name):
        known = of_class(resolve(name))
    known = known or await store.terms(name)
    if known is None:
        there = ", ".join(defined_names()) or "none"
        raise ConfigurationError(
            f"there is no limit {name!r} (defined here: {there}): define outbox.RateLimit({name!r}, …), or "
            f"`outbox limits set {name} 100/m`"
        )
    return known
