"""What the headers of a job keep as its keys, whatever its fields and its methods are like."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field, model_serializer, model_validator

from outbox import Job
from outbox.envelope import Headers, serialize
from outbox.errors import ConfigurationError, InvalidJob, InvalidOption
from outbox.options import JobOptions

KEYED_BY = ("unique", "concurrency_key", "ordering_key", "fair_key", "rate_key")


class Aliased(Job):
    """Its payload has aliases, because its validator reads nothing else."""

    customer_id: int | None = Field(alias="customerId")

    @model_validator(mode="before")
    @classmethod
    def _read(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {"customerId": values["customerId"]}

    async def handle(self) -> None: ...


class Packed(Job):
    """Its payload has another shape than its fields."""

    customer_id: int | None

    @model_serializer
    def _pack(self) -> dict[str, Any]:
        return {"packed": [self.customer_id]}

    @model_validator(mode="before")
    @classmethod
    def _unpack(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {"customer_id": values["packed"][0]} if "packed" in values else values

    async def handle(self) -> None: ...


def keys_of(job: Job, option: str, value: object = None) -> str:
    given = {option: value} if value is not None else {}
    if option == "rate_key":
        given["rate"] = "1/s"
    headers = Headers.load(serialize(job, JobOptions.checked(**given)).headers)  # type: ignore[arg-type]
    kept = headers.unique or headers.keys or headers.rates
    assert kept is not None
    return kept.model_dump_json()


@pytest.mark.parametrize("option", KEYED_BY)
def test_each_value_of_a_field_is_a_key_whatever_the_payload_looks_like(option: str) -> None:
    field: Any = ["customer_id"] if option == "unique" else "customer_id"
    for make in (lambda value: Aliased(customerId=value), lambda value: Packed(customer_id=value)):
        values = [keys_of(make(number), option, field) for number in (1, 2, None)]
        assert len(set(values)) == 3
        assert keys_of(make(1), option, field) == values[0]


@pytest.mark.parametrize("option", KEYED_BY)
def test_a_method_whose_text_cannot_be_stored(option: str) -> None:
    method = "unique_key" if option == "unique" else option

    async def handle(self: Job) -> None: ...

    body: dict[str, Any] = {method: lambda self: "\ud800", "handle": handle, "__module__": __name__}
    if option == "rate_key":
        body["rate"] = "1/s"
    job = type(f"Lone{option}", (Job,), body)()
    with pytest.raises(InvalidJob, match=f"{method} returned .*, which UTF-8 does not have"):
        serialize(job)


@pytest.mark.parametrize(
    ("option", "value", "key"),
    [
        ("concurrency_limit", 2, "concurrency_key"),
        ("on_full", "skip", "concurrency_key"),
        ("on_failed", "skip", "ordering_key"),
        ("ordering", "strict", "ordering_key"),
        ("fair_weight", 3, "fair_key"),
    ],
)
def test_an_option_of_a_key_without_the_key_is_a_mistake(option: str, value: object, key: str) -> None:
    """It would limit nothing, and say nothing."""

    async def handle(self: Job) -> None: ...

    body: dict[str, Any] = {option: value, "handle": handle, "__module__": __name__}
    with pytest.raises(ConfigurationError, match=f"{option} says something of a key: set `{key}` as well"):
        type("Keyless", (Job,), body)
    without = {name: each for name, each in body.items() if name != "handle"}
    keyed = type(f"Keyed{option}", (type("Shared", (Job,), without),), body | {key: lambda self: "a"})
    assert serialize(keyed()).policies


def test_a_job_in_the_order_of_transactions_is_not_put_off() -> None:
    class Ordered(Job):
        ordering_key = "number"
        unique = ("number",)
        number: int

        async def handle(self) -> None: ...

    refusal = "takes no delay and no debounce"
    for late in ({"delay": 5}, {"debounce": 5}):
        with pytest.raises(InvalidOption, match=refusal):
            serialize(Ordered(number=1), JobOptions.checked(ordering="strict", **late))
    with pytest.raises(ConfigurationError, match=refusal):
        type("Debounced", (Ordered,), {"ordering": "strict", "debounce": 5, "__module__": __name__})


@pytest.mark.parametrize("option", ["concurrency_key", "ordering_key", "fair_key", "rate_key", "cost"])
def test_a_method_that_a_dispatch_cannot_call_is_refused_with_its_class(option: str) -> None:
    async def handle(self: Job) -> None: ...

    async def awaited(self: Job) -> str:
        return ""

    body = {"handle": handle, "__module__": __name__, "rate": "1/s"}
    with pytest.raises(ConfigurationError, match=f"`{option}` is called without arguments: missing"):
        type("Asking", (Job,), body | {option: lambda self, what: what})
    with pytest.raises(ConfigurationError, match=f"`{option}` is called and not awaited"):
        type("Awaited", (Job,), body | {option: awaited})


def test_a_wrong_value_is_told_from_the_right_ones() -> None:
    with pytest.raises(InvalidOption, match="on_full is 'wait' or 'skip' or 'replace_running', not 'drop'"):
        JobOptions.checked(on_full="drop")  # type: ignore[typeddict-item]
