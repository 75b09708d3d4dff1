"""Job classes: what a definition accepts, what a dispatch refuses, and how rows become jobs again."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field, PlainSerializer, computed_field
from pydantic.alias_generators import to_camel
from pydantic.dataclasses import dataclass

from outbox import Job, registry
from outbox.envelope import deserialize, serialize
from outbox.errors import (
    ConfigurationError,
    InvalidJob,
    InvalidOption,
    InvalidPayload,
    PayloadTooLarge,
    UnknownJob,
)
from outbox.options import JobOptions


class Item(BaseModel):
    sku: str
    amount: int = Field(ge=1)


class Ship(Job):
    queue = "shipping"
    max_tries = 7
    aliases = ("shop.OldShip",)

    order_id: int
    items: list[Item] = Field(default_factory=list)
    anything: Any = None

    async def handle(self) -> None:
        """Not run here."""


def test_a_job_survives_its_row() -> None:
    job = Ship(order_id=7, items=[Item(sku="a", amount=2)], anything={"deep": [1, None, "x"]})
    envelope = serialize(job)
    assert (envelope.name, envelope.queue) == (f"{__name__}.Ship", "shipping")
    assert deserialize(envelope.name, envelope.payload) == job


def test_a_field_set_after_construction_is_dispatched_and_validated() -> None:
    job = Ship(order_id=0)
    job.order_id = 7
    assert json.loads(serialize(job).payload)["order_id"] == 7
    job.order_id = "seven"  # type: ignore[assignment]
    with pytest.raises(InvalidJob, match="'order_id'"):
        serialize(job)
    job.order_id = 7
    job.items = [Item.model_construct(sku="a", amount=0)]
    with pytest.raises(InvalidJob, match=r"'items\.0\.amount'"):
        serialize(job)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (object(), "'anything' cannot be serialised"),
        (2**64, "'anything' holds an integer of more than 64 bits"),
        ([{"deep": -(2**63) - 1}], r"'anything\.0\.deep' holds an integer"),
        ({"x" * 65_536: 1}, "'anything' has a key of more than 65,535 bytes"),
        ([{"é" * 32_768: 1}], r"'anything\.0' has a key"),
    ],
)
def test_what_json_cannot_hold_is_refused_by_name(value: object, says: str) -> None:
    with pytest.raises(InvalidJob, match=says):
        serialize(Ship(order_id=1, anything=value))


def test_what_json_can_hold_is_kept() -> None:
    value = [2**64 - 1, -(2**63), 10**18, "1" * 30, "[" * 200, 1.5]
    job = Ship(order_id=1, anything=value)
    assert deserialize(job.name, serialize(job).payload).anything == value  # type: ignore[attr-defined]


def test_a_field_that_refers_to_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidJob, match="anything"):
        serialize(Ship.model_construct(order_id=1, items=[], anything=loop))


def test_more_levels_than_a_json_column_takes_are_refused() -> None:
    nested: Any = 1
    for _ in range(31):
        nested = [nested]
    with pytest.raises(InvalidJob, match="'anything' is nested over 31 levels"):
        serialize(Ship(order_id=1, anything=nested))


def test_infinity_and_nan_are_refused() -> None:
    class Weigh(Job):
        grams: float

        async def handle(self) -> None:
            """Not run here."""

    with pytest.raises(ValueError, match="finite"):
        Weigh(grams=float("nan"))
    job = Weigh(grams=1.0)
    job.grams = float("inf")
    with pytest.raises(InvalidJob, match="grams"):
        serialize(job)


def test_a_field_that_does_not_load_as_it_was_written_is_refused_at_dispatch() -> None:
    class Odd(Job):
        number: Annotated[int, PlainSerializer(lambda _: "not a number")]

        async def handle(self) -> None:
            """Not run here."""

    with pytest.raises(InvalidJob, match="number"):
        serialize(Odd(number=1))


class RedisUrl(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)

    zip_code: str = "00000"


class Pet(BaseModel):
    kind: Literal["cat"] = Field(alias="Kind")


class Fish(BaseModel):
    kind: Literal["fish"] = Field(alias="Kind")


@dataclass
class Parcel:
    grams: int = Field(default=0, alias="Grams")


class Camel(Job):
    order_id: int = Field(default=0, alias="orderId")
    required: int = Field(alias="Required")
    address: RedisUrl = RedisUrl()
    others: list[RedisUrl] = Field(default_factory=list)
    read: int = Field(default=0, validation_alias=AliasChoices("READ", AliasPath("deep", 1)))
    written: int = Field(default=0, serialization_alias="WRITTEN")
    pet: Pet | Fish | None = Field(default=None, discriminator="kind")
    parcel: Parcel = Parcel()

    async def handle(self) -> None:
        """Not run here."""


def full_camel(kind: type[Job]) -> Job:
    return kind.model_validate(
        {
            "orderId": 7, "Required": 8, "address": {"zipCode": "12345"}, "others": [{"zipCode": "6"}], "deep": [0, 9],
            "written": 10, "pet": {"Kind": "fish"}, "parcel": {"Grams": 11},
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"populate_by_name": True},
        {"serialize_by_alias": True},
        {"validate_by_name": True, "serialize_by_alias": True},
        {"validate_by_alias": True, "validate_by_name": False, "extra": "forbid"},
        {"extra": "allow", "strict": True},
        {"defer_build": True},
    ],
)
def test_a_field_with_an_alias_keeps_its_value(config: dict[str, Any]) -> None:
    class Configured(Camel):
        model_config = ConfigDict(**config)  # type: ignore[typeddict-item]

    job = full_camel(Configured) if config.get("extra") is None else Configured(Required=3, orderId=7)
    envelope = serialize(job)
    assert list(json.loads(envelope.payload)) == list(Camel.model_fields)
    assert deserialize(envelope.name, envelope.payload) == job


def test_a_field_that_is_called_as_the_alias_of_another_keeps_its_value() -> None:
    class Swapped(Job):
        one: int = Field(default=0, alias="two")
        two: int = Field(default=0, alias="one")

        async def handle(self) -> None:
            """Not run here."""

    class Total(BaseModel):
        net: int = Field(default=0, alias="gross")

        @computed_field
        @property
        def gross(self) -> int:
            return self.net * 2

    class Within(Job):
        totals: list[Total]
        inner: Any = Field(default=None, validation_alias=AliasPath("inner", "deep"))

        async def handle(self) -> None:
            """Not run here."""

    swapped = Swapped(two=1, one=2)
    assert deserialize(swapped.name, serialize(swapped).payload) == swapped
    within = Within.model_validate({"totals": [{"gross": 7}], "inner": {"deep": {"deep": 1}}})
    assert deserialize(within.name, serialize(within).payload) == within


def test_a_payload_whose_keys_are_aliases_still_loads() -> None:
    """As it was written for a class with ``serialize_by_alias`` before payloads had the names of fields."""
    payload = (
        '{"orderId":7,"Required":8,"address":{"zipCode":"12345"},"others":[{"zipCode":"6"}],"deep":[0,9],'
        '"written":10,"pet":{"Kind":"fish"},"parcel":{"Grams":11}}'
    )
    assert deserialize(Camel.name, payload) == full_camel(Camel)


def test_the_limit_is_in_bytes_and_inclusive() -> None:
    limit = len('{"order_id":1,"items":[],"anything":""}') + 100
    serialize(Ship(order_id=1, anything="é" * 50), payload_limit=limit)
    with pytest.raises(PayloadTooLarge, match="140 bytes, the limit 139"):
        serialize(Ship(order_id=1, anything="x" + "é" * 50), payload_limit=limit)


@pytest.mark.parametrize("wrong", [Ship, "Ship", None, 3])
def test_only_jobs_are_dispatched(wrong: Any) -> None:
    with pytest.raises(InvalidJob, match="dispatch"):
        serialize(wrong)


def test_a_class_without_handle_is_a_base_and_not_a_job() -> None:
    class Base(Job):
        order_id: int = 0

    assert Base.name not in registry.registered()
    with pytest.raises(InvalidJob, match="handle"):
        serialize(Base())


def test_a_subclass_inherits_options_and_not_names() -> None:
    class Express(Ship):
        priority = 0

    assert (Express.queue, Express.max_tries, Express.priority) == ("shipping", 7, 0)
    assert Express.name.endswith("Express")
    assert Express.aliases == ()


def test_an_alias_loads_rows_of_the_old_name() -> None:
    assert isinstance(deserialize("shop.OldShip", '{"order_id": 1}'), Ship)


def test_two_classes_cannot_have_one_name() -> None:
    with pytest.raises(ConfigurationError, match=r"two job classes are named 'shop\.OldShip'"):

        class Other(Job):
            name = "shop.OldShip"

            async def handle(self) -> None:
                """Not run here."""


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"queue": "Mail"}, "queue"),
        ({"queue": "x" * 65}, "queue"),
        ({"priority": 10}, "priority"),
        ({"priority": True}, "priority"),
        ({"max_tries": 0}, "max_tries"),
        ({"timeout": -1}, "timeout"),
        ({"backoff": [1, -1]}, "backoff"),
        ({"name": "größe"}, "ASCII"),
        ({"aliases": "one.name"}, "list"),
        ({"aliases": None}, "list"),
        ({"aliases": ("shop.Old", 5)}, "alias"),
        ({"aliases": ["größe"]}, "alias"),
        ({"connection": 5}, "connection"),
        ({"timeout": timedelta(seconds=5)}, "timeout"),
        ({"backoff": timedelta(seconds=5)}, "backoff"),
        ({"backoff": "soon"}, "backoff"),
        ({"backoff": {1, 2}}, "backoff"),
    ],
)
def test_a_class_with_an_option_out_of_range_cannot_be_defined(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        type("Wrong", (Job,), {"__module__": __name__, **options})


@pytest.mark.filterwarnings("ignore:Field name")
def test_an_option_with_an_annotation_is_not_taken_for_a_field() -> None:
    with pytest.raises(ConfigurationError, match="`queue` belongs to the job class"):

        class Wrong(Job):
            queue: str = "mail"  # type: ignore[misc]


class Contextual:
    def context(self) -> str:
        return "mine"


@pytest.mark.filterwarnings("ignore:Field name")
@pytest.mark.parametrize(
    ("bases", "members", "name"),
    [
        ((Job,), {"context": property(lambda _: "mine")}, "context"),
        ((Job,), {"run_in": lambda self, room: room}, "run_in"),
        ((Job,), {"_context": 5}, "_context"),
        ((Job,), {"__annotations__": {"context": dict[str, str]}}, "context"),
        ((Job,), {"__annotations__": {"context": ClassVar[int]}, "context": 5}, "context"),
        ((Contextual, Job), {}, "context"),
    ],
)
def test_what_a_worker_needs_of_a_job_cannot_be_replaced(
    bases: tuple[type, ...], members: dict[str, Any], name: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"Wrong: `{name}`"):
        type("Wrong", bases, {"__module__": __name__, **members})


def test_class_options_may_be_annotated_as_such() -> None:
    class Right(Job):
        queue: ClassVar[str] = "mail"

    assert Right.queue == "mail"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"queue": "a b"}, "queue"),
        ({"priority": -1}, "priority"),
        ({"max_tries": 1.5}, "max_tries"),
        ({"timeout": "1"}, "timeout"),
        ({"backoff": "soon"}, "backoff takes"),
        ({"backoff": b"12"}, "backoff takes"),
        ({"backoff": timedelta(seconds=5)}, "backoff takes"),
        ({"backoff": lambda attempt: attempt}, "backoff takes"),
        ({"backoff": [timedelta(seconds=5)]}, "backoff takes"),
        ({"delay": float("nan")}, "delay"),
        ({"delay": "tomorrow"}, "delay"),
        ({"delay": datetime(2030, 1, 1)}, "time zone"),  # noqa: DTZ001 - the point
        ({"delay": timedelta(days=36_500)}, "delay"),
        ({"delay": datetime.now(UTC) + timedelta(days=3_651)}, "ten years"),
        ({"delay": datetime.max.replace(tzinfo=UTC)}, "ten years"),
        ({"delay": datetime.max.replace(tzinfo=timezone(timedelta(hours=-5)))}, "ten years"),
    ],
)
def test_a_dispatch_with_an_option_out_of_range_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidOption, match=says):
        JobOptions.checked(**options)


def test_a_moment_is_a_delay_in_any_time_zone() -> None:
    moment = datetime.now(timezone(timedelta(hours=-5))) + timedelta(days=3_649)
    available_at = serialize(Ship(order_id=1), JobOptions.checked(delay=moment)).available_at
    assert available_at is not None
    assert available_at == moment
    assert available_at.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "moment",
    [
        datetime.min.replace(tzinfo=UTC),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=5))),
        datetime.now(UTC) - timedelta(days=2),
    ],
)
def test_a_moment_that_has_long_passed_is_no_delay(moment: datetime) -> None:
    envelope = serialize(Ship(order_id=1), JobOptions.checked(delay=moment))
    assert (envelope.delay, envelope.available_at) == (0, None)


def test_rows_that_make_no_job_say_why() -> None:
    with pytest.raises(UnknownJob, match="OUTBOX_JOBS"):
        deserialize("no.such.Job", "{}")
    with pytest.raises(UnknownJob):
        deserialize("os.system", '"true"')
    with pytest.raises(InvalidPayload, match="Invalid JSON"):
        deserialize(Ship.name, "{")
    with pytest.raises(InvalidPayload, match="order_id"):
        deserialize(Ship.name, "{}")


def test_a_job_outside_a_worker_has_no_context() -> None:
    with pytest.raises(RuntimeError, match="not being run"):
        _ = Ship(order_id=1).context
