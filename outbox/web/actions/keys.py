"""Let blocked keys go on, pause and resume keys, and change limits."""

from __future__ import annotations

from starlette.responses import Response

from outbox.console.formatting import line
from outbox.drivers.base import Driver, PolicyStore
from outbox.drivers.pauses import PauseKind, PauseTarget, PauseTerms, check_target, check_text
from outbox.errors import ConfigurationError, InvalidOption, JobNotFound
from outbox.job_changes import retry_jobs
from outbox.limits import limits_of
from outbox.pausing import pause_on, resume_on
from outbox.policies.keys import MAX_LIMIT
from outbox.policies.rate_limits import Terms, check_name, check_terms
from outbox.web.parameters import parse_id
from outbox.web.view import View


def _policies(driver: Driver) -> PolicyStore:
    if driver.policies is None:
        raise ConfigurationError(f"keys are kept by a database, not by the connection {driver.name}")
    return driver.policies


async def retry(view: View) -> Response:
    job_id = parse_id(view.parameters.required("id"))
    if not await view.change(view.connection(), lambda driver: retry_jobs(driver, [job_id])):
        raise JobNotFound(f"there is no failed job {job_id} any more: it was retried or forgotten")
    return view.done("The failed job was put back, as the next of its key.", "/keys")


async def skip(view: View) -> Response:
    job_id = parse_id(view.parameters.required("id"))
    if not await view.change(view.connection(), lambda driver: _policies(driver).skip_failed([job_id])):
        raise JobNotFound(f"the job {job_id} blocks no key any more")
    return view.done("The key goes on without the failed job.", "/keys")


async def pause(view: View) -> Response:
    key = view.parameters.required("key")
    reason, seconds = check_text(view.parameters.text("reason"), "a reason"), view.parameters.span("for")
    terms, target = PauseTerms(reason, None, seconds or None, view.viewer.name[:255]), _target(key)
    done = await view.change(view.connection(), lambda driver: pause_on(driver, target, terms))
    return view.done(f"{line(key)} is paused." if done else f"{line(key)} was paused already.", "/keys")


async def resume(view: View) -> Response:
    key = view.parameters.required("key")
    done = await view.change(view.connection(), lambda driver: resume_on(driver, _target(key)))
    return view.done(f"{line(key)} is resumed." if done else f"{line(key)} was not paused.", "/keys")


def _target(key: str) -> PauseTarget:
    return check_target(PauseTarget(PauseKind.KEY, key))


async def set_limit(view: View) -> Response:
    name, value = _name(view), view.parameters.required("value").strip()
    if value.isascii() and value.isdigit():
        number = int(value)
        if not 1 <= number <= MAX_LIMIT:
            raise InvalidOption(f"a number of jobs is from 1 to {MAX_LIMIT:,}, not {value}")
        await view.change(view.connection(), lambda driver: limits_of(driver).set(name, concurrency=number))
        return view.done(f"At most {number:,} jobs of {line(name)} run at once.", "/keys")
    terms = check_terms(Terms.model_construct(name=name, rate=value, burst=None, align=None))
    await view.change(view.connection(), lambda driver: limits_of(driver).set(name, terms))
    return view.done(f"{line(name)} is {value}.", "/keys")


async def reset_limit(view: View) -> Response:
    name = _name(view)
    known = await view.change(view.connection(), lambda driver: limits_of(driver).reset(name))
    return view.done(f"{line(name)} is as its jobs declare it." if known else f"{line(name)} was not set.", "/keys")


def _name(view: View) -> str:
    try:
        return check_name(view.parameters.required("name"))
    except ConfigurationError as error:
        raise InvalidOption(str(error)) from error
