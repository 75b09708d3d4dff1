"""Versions of payloads: what a definition refuses, and what becomes of old and new payloads."""

from __future__ import annotations

from typing import Any

import pytest

from outbox import Job, upgrade
from outbox.envelope import Headers, deserialize, serialize
from outbox.errors import ConfigurationError, InvalidPayload, NewerPayload
from outbox.ids import JobId
from outbox.middleware.thread_call import Threads
from outbox.options import JobOptions
from outbox.policies.unique import pack_payload, unpack_payload
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.execution.executor import Executor
from outbox.runtime.execution.given_back import GivenBackJobs
from outbox.settings import WorkerOptions
from outbox.settlement import Outcome
from tests.unit.runtime.memory import Recorder, claim_of


class Mailed(Job):
    name = "versions.Mailed"
    version = 3

    addresses: list[str]
    urgent: bool

    @upgrade(1)
    @staticmethod
    def to_several(payload: dict[str, Any]) -> dict[str, Any]:
        return {"addresses": [payload["address"]]}

    @upgrade(2)
    @classmethod
    def with_urgency(cls, payload: dict[str, Any]) -> dict[str, Any]:
        assert cls is Mailed
        return payload | {"urgent": False}

    async def handle(self) -> None: ...


class Plain(Job):
    name = "versions.Plain"
    number: int = 0

    async def handle(self) -> None: ...


class Broken(Mailed):
    name = "versions.Broken"

    @upgrade(1)
    def to_list(payload: dict[str, Any]) -> Any:  # type: ignore[misc]  # noqa: N805
        return [payload]


def test_the_version_is_in_the_headers_and_a_class_without_one_pays_nothing() -> None:
    assert Headers.load(serialize(Mailed(addresses=[], urgent=True)).headers).version == 3
    limited = serialize(Mailed(addresses=[], urgent=True), JobOptions.checked(max_tries=2))
    assert limited.headers == '{"max_tries":2,"version":3}'
    assert serialize(Plain()).headers == "{}"


@pytest.mark.parametrize(
    ("payload", "headers"),
    [
        ('{"address": "a"}', "{}"),
        ('{"address": "a"}', '{"version":1}'),
        ('{"addresses": ["a"]}', '{"version":2}'),
        ('{"addresses": ["a"], "urgent": false}', '{"version":3}'),
    ],
)
def test_old_payloads_are_upgraded_step_by_step(payload: str, headers: str) -> None:
    assert deserialize(Mailed.name, payload, headers) == Mailed(addresses=["a"], urgent=False)


@pytest.mark.parametrize(
    ("name", "payload", "headers", "message"),
    [
        (Mailed.name, '{"other": 1}', "{}", "`to_several` cannot upgrade .* from version 1: KeyError: 'address'"),
        (Broken.name, '{"address": "a"}', "{}", "`to_list` cannot upgrade .*: it returns a list, and not a dict"),
        (Mailed.name, "{", "{}", "the payload is not JSON"),
        (Mailed.name, '{"addresses": 7}', '{"version":2}', "the field 'addresses' does not validate"),
    ],
)
def test_an_upgrade_that_fails_names_its_step(name: str, payload: str, headers: str, message: str) -> None:
    with pytest.raises(InvalidPayload, match=message):
        deserialize(name, payload, headers)


def test_a_payload_from_which_nothing_leads_on_is_refused() -> None:
    class Late(Job):
        name = "versions.Late"
        version = 3

        async def handle(self) -> None: ...

    with pytest.raises(InvalidPayload, match=r"version 1, and nothing leads from there to version 3: .*@upgrade\(1\)"):
        deserialize(Late.name, "{}")


@pytest.mark.parametrize("name", [Mailed.name, Plain.name])
def test_a_newer_payload_is_told_apart(name: str) -> None:
    with pytest.raises(NewerPayload, match="has version 4, and this worker's code knows versions up to [13]: deploy"):
        deserialize(name, '{"number": 1}', '{"version":4}')


def plain(payload: dict[str, Any]) -> dict[str, Any]:
    return payload


def nothing() -> dict[str, Any]:
    return {}


async def awaited(payload: dict[str, Any]) -> dict[str, Any]:
    return payload


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"version": "3"}, "version is a whole number from 1 to 65535, not '3'"),
        ({"version": True}, "not True"),
        ({"version": 0}, "not 0"),
        ({"up": (1, plain)}, r"@upgrade\(1\) needs a `version` of the class"),
        ({"version": 1, "up": (1, plain)}, r"@upgrade\(1\) leads to version 2, but version is 1: set version = 2"),
        ({"version": 3, "up": (1, plain)}, r"nothing leads from version 2 to 3: add a function marked @upgrade\(2\)"),
        ({"version": 2, "up": (1, plain), "again": (1, plain)}, r"`up` and `again` are both marked @upgrade\(1\)"),
        ({"version": 2, "up": (1, nothing)}, "`up` is called with the payload as its only argument"),
    ],
)
def test_a_definition_whose_steps_do_not_lead_to_its_version_is_refused(members: dict[str, Any], message: str) -> None:
    def copied(version: int, function: Any) -> Any:
        def step(*arguments: Any) -> Any:
            return function(*arguments)

        step.__signature__ = __import__("inspect").signature(function)  # type: ignore[attr-defined]
        return upgrade(version)(staticmethod(step))

    namespace = {name: copied(*value) if isinstance(value, tuple) else value for name, value in members.items()}
    with pytest.raises(ConfigurationError, match=message):
        type(Job)("Refused", (Job,), {"__module__": __name__, "__qualname__": "Refused", **namespace})


@pytest.mark.parametrize("version", [0, 65_535, "1", True, None])
def test_upgrade_takes_a_version(version: Any) -> None:
    with pytest.raises(ConfigurationError, match="@upgrade takes the version that it upgrades from"):
        upgrade(version)


@pytest.mark.parametrize("function", [7, Plain, awaited])
def test_upgrade_marks_plain_functions(function: Any) -> None:
    with pytest.raises(ConfigurationError, match="marks a function|make it a plain `def`"):
        upgrade(1)(function)


@pytest.mark.parametrize("version", [None, 1, 12])
def test_a_replaced_payload_keeps_its_version(version: int | None) -> None:
    assert unpack_payload(pack_payload('{"a":"1:2"}', version)) == ('{"a":"1:2"}', version)


async def test_a_newer_payload_is_given_back_and_fails_in_the_end() -> None:
    recorder, threads = Recorder(), Threads()
    claim = claim_of(Plain())._replace(headers='{"version":2}')
    for newer, outcome in ((GivenBackJobs(), Outcome.SNOOZED), (GivenBackJobs(longest=0), Outcome.FAILED)):
        executor = Executor(WorkerOptions(), threads, recorder.events, given_back=newer)
        settlement = await executor.run(Attempt(claim, "memory", lambda _: None))
        assert settlement is not None
        assert settlement.outcome is outcome
    assert settlement.failure is not None
    assert settlement.failure.type == "outbox.errors.NewerPayload"
    await threads.stop()


def test_the_pause_grows_until_the_hour_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("outbox.clock.now", lambda: now)
    newer, job_id = GivenBackJobs(), JobId(int=1)
    assert newer.is_new(job_id)
    pauses = []
    for moment in (0.0, 100.0, 3_599.0):
        now = moment
        pauses.append(newer.delay(job_id))
    assert not newer.is_new(job_id)
    assert [round(pause or 0, -1) for pause in pauses[:2]] == [0, 10]
    assert 48 <= (pauses[2] or 0) <= 72
    now = 3_600.0
    assert newer.delay(job_id) is None
