"""What was dispatched is what a worker loads, or it is refused with the name of the field."""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import ipaddress
import re
import time
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import pytest
from pydantic import (
    AnyUrl,
    Base64Bytes,
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    ImportString,
    Json,
    PostgresDsn,
    PrivateAttr,
    RootModel,
    Secret,
    SecretBytes,
    SecretStr,
    SerializeAsAny,
    computed_field,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.dataclasses import dataclass

from outbox import Job
from outbox.envelope import deserialize, serialize
from outbox.errors import InvalidJob

T = TypeVar("T")


def job_class(annotation: Any, config: ConfigDict | None = None, **members: Any) -> Callable[..., Any]:
    """A job with one field, ``value``."""
    body = {
        "__module__": __name__,
        "__annotations__": {"value": annotation},
        "model_config": config or ConfigDict(),
        "handle": lambda self: None,
        **members,
    }
    return type("Carrier", (Job,), body)


def carry(job: Any) -> Any:
    """The value as a worker gets it."""
    envelope = serialize(job)
    return deserialize(envelope.name, envelope.payload).value  # type: ignore[attr-defined]


class Item(BaseModel):
    sku: str
    price: float | None = None


class SpecialItem(Item):
    note: str = ""


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"


class Box(BaseModel, Generic[T]):
    content: T


class Numbers(RootModel[list[int]]):
    """A list with a name."""


class Colour(enum.Enum):
    RED = 1
    BLUE = "blue"


class Level(enum.StrEnum):
    HIGH = "high"


class Mode(enum.Flag):
    READ = 1
    WRITE = 2


class Pair(NamedTuple):
    left: int
    right: str = ""


@dataclasses.dataclass
class Parcel:
    grams: int
    tags: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class HeavyParcel(Parcel):
    crane: bool = True


@dataclass
class Serialized:
    grams: int
    serialize: str = Field(default="", exclude=True)


class Exact(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="strings")

    number: float


class Bare(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="constants")

    number: float


class Quarrelsome(BaseModel):
    number: int

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")

    __hash__ = None  # type: ignore[assignment]


class Agreeable(BaseModel):
    number: int = 0
    secret: int = Field(default=0, exclude=True)

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


class Doubled(BaseModel):
    model_config = ConfigDict(extra="forbid")

    number: int

    @computed_field
    @property
    def double(self) -> int:
        return 2 * self.number


class Shortened(BaseModel):
    number: int
    rest: int = 0

    @model_serializer
    def short(self) -> dict[str, int]:
        return {"number": self.number}


class Cached(BaseModel):
    number: int
    _looked_up: int = PrivateAttr(default=0)


def looked_up() -> Cached:
    cached = Cached(number=1)
    cached._looked_up = 5
    return cached


MOMENT = datetime(2024, 10, 27, 2, 30, 0, 1, tzinfo=UTC)
VIENNA = ZoneInfo("Europe/Vienna")
BASE64: ConfigDict = {"ser_json_bytes": "base64", "val_json_bytes": "base64"}


@pytest.mark.parametrize(
    ("annotation", "value", "config"),
    [
        (bytes, b"text", {}),
        (bytes, b"\xff\x00", BASE64),
        (Base64Bytes, "/wA=", {}),
        (set[int], {1, 2}, {}),
        (frozenset[str], frozenset({"a"}), {}),
        (deque[int], deque([1, 2]), {}),
        (tuple[int, str], (1, "a"), {}),
        (Sequence[int], [1, 2], {}),
        (dict[int, str], {1: "a"}, {}),
        (dict[date, int], {date(2024, 1, 1): 1}, {}),
        (OrderedDict[str, int], OrderedDict(a=1, b=2), {}),
        (Counter[str], Counter("aab"), {}),
        (defaultdict[str, list[int]], defaultdict(list, {"a": [1]}), {}),
        (Decimal, Decimal("1.50000000000000000000001"), {}),
        (Fraction, Fraction(1, 3), {}),
        (complex, 1 + 2j, {}),
        (float, 0.1 + 0.2, {}),
        (float, -0.0, {}),
        (float, float("-inf"), {"allow_inf_nan": True, "ser_json_inf_nan": "strings"}),
        (timedelta, timedelta(days=-3, microseconds=7), {}),
        (datetime, MOMENT, {}),
        (datetime, datetime(2024, 1, 1), {}),  # noqa: DTZ001 - the point
        (datetime, datetime(2024, 7, 1, tzinfo=VIENNA), {}),
        (clock_time, clock_time(1, 2, 3, 4), {}),
        (uuid.UUID, uuid.UUID(int=7), {}),
        (uuid.UUID, uuid.UUID(int=7), {"strict": True}),
        (Path, Path("/tmp/x"), {}),
        (re.Pattern[str], re.compile("a+"), {}),
        (ipaddress.IPv4Address, "10.0.0.1", {}),
        (AnyUrl, "https://example.org/a?b", {}),
        (PostgresDsn, "postgres://u:p@one,two/x", {}),
        (ByteSize, "1GiB", {}),
        (ZoneInfo, "Europe/Vienna", {}),
        (ImportString, "math.cos", {}),
        (Colour, Colour.RED, {}),
        (dict[Level, int], {Level.HIGH: 1}, {}),
        (Mode, Mode.READ | Mode.WRITE, {}),
        (Colour, Colour.BLUE, {"use_enum_values": True}),
        (Json[list[date]], '["2024-01-01"]', {}),
        (SpecialItem | Item, SpecialItem(sku="a"), {}),
        (Annotated[Cat | Dog, Field(discriminator="kind")], Dog(), {}),
        (int | str, "1", {}),
        (int | float, 1.0, {}),
        (bool | int, 1, {}),
        (Box[date], Box[date](content=date(2024, 1, 1)), {}),
        (Numbers, Numbers([1]), {}),
        (Parcel, Parcel(1, ["a"]), {}),
        (Pair, Pair(1, "a"), {"strict": True}),
        (Doubled, Doubled(number=2), {}),
        (Serialized, Serialized(1), {}),
        (Any, {"a": [1, 1.0, True, None, {"b": "c"}] * 9}, {}),
        (Any, "NaN, Infinity", {}),
        (SecretStr | None, None, {}),
    ],
    ids=str,
)
def test_what_pydantic_round_trips_reaches_the_worker(annotation: Any, value: Any, config: ConfigDict) -> None:
    job = job_class(annotation, config)(value=value)
    arrived = carry(job)
    assert arrived == job.value
    assert type(arrived) is type(job.value)


def test_the_second_of_two_equal_clock_times_reaches_the_worker_as_such() -> None:
    # Times that a clock shows twice are equal to none of another zone.
    sent = datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=VIENNA)
    assert carry(job_class(datetime)(value=sent)) == sent.astimezone(UTC)


class OneOfAnyClock(type):
    """As the libraries have it that freeze time in tests."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, date)


class FrozenDatetime(datetime, metaclass=OneOfAnyClock):
    """Stands for every datetime."""


class FrozenDate(date, metaclass=OneOfAnyClock):
    """Stands for every date."""


def test_a_time_of_a_frozen_clock_reaches_the_worker_as_a_time() -> None:
    assert carry(job_class(datetime)(value=FrozenDatetime(2024, 1, 1, tzinfo=UTC))) == datetime(2024, 1, 1, tzinfo=UTC)
    assert carry(job_class(list[date])(value=[FrozenDate(2024, 1, 1)])) == [date(2024, 1, 1)]
    with pytest.raises(InvalidJob, match="loads as datetime"):
        serialize(job_class(datetime)(value=type("Later", (datetime,), {})(2024, 1, 1, tzinfo=UTC)))


def test_nan_reaches_the_worker_where_it_is_serialised() -> None:
    arrived = carry(job_class(list[Exact])(value=[Exact(number=float("nan"))]))
    assert str(arrived) == "[Exact(number=nan)]"


@pytest.mark.parametrize(
    ("annotation", "value", "config", "says"),
    [
        (Item, SpecialItem(sku="a"), {}, r"'value' .* SpecialItem loads as Item"),
        (list[Item], [Item(sku="a"), SpecialItem(sku="b")], {}, r"'value\.1'"),
        (dict[str, Item], {"a": SpecialItem(sku="a")}, {}, r"'value\.a'"),
        (SerializeAsAny[Item], SpecialItem(sku="a"), {}, "SpecialItem loads as Item"),
        (Parcel, HeavyParcel(1), {}, "HeavyParcel loads as Parcel"),
        (Box, Box[int](content=1), {}, r"Box\[int\] loads as Box"),
        (bytes, b"abcd", {"ser_json_bytes": "base64"}, "ser_json_bytes and val_json_bytes"),
        (bytes, b"\xff", {}, "'value' cannot be serialised"),
        (Serialized, Serialized(1, "x"), {}, r"'value\.serialize' .* excluded"),
        (dict[Any, int], {1: 1, "1": 2}, {}, "'value' .* written alike"),
        (dict[int | str, int], {1: 1, "1": 2}, {}, "'value' .* written alike"),
        (dict[Any, int], {1: 1}, {}, "'value' would be lost"),
        (dict[Any, int], {None: 1}, {}, "'value' would be lost"),
        (dict[Any, int], {Colour.RED: 1}, {}, "'value' would be lost"),
        (dict[tuple[int, int], int], {(1, 2): 3}, {}, r"'value\."),
        (OrderedDict[str, int], OrderedDict(b=1, a=2), {}, "'value' has an order of keys"),
        (Item, Item(sku="a", price=float("nan")), {"allow_inf_nan": True}, r"'value\.price' .* ser_json_inf_nan"),
        (Any, [float("inf")], {}, r"'value\.0' .* ser_json_inf_nan"),
        (Bare, Bare(number=float("nan")), {}, r"'value\.number' holds nan"),
        (float, float("inf"), {"allow_inf_nan": True, "ser_json_inf_nan": "constants"}, "'value' holds inf"),
        (Any, (1, 2), {}, "tuple loads as list"),
        (dict[str, Any], {"a": {1}}, {}, r"'value\.a' .* set loads as list"),
        (Any, date(2024, 1, 1), {}, "date loads as str"),
        (Any, uuid.UUID(int=7), {}, "UUID loads as str"),
        (Any, Item(sku="a"), {}, "Item loads as dict"),
        (Any, Level.HIGH, {}, "Level loads as str"),
        (Any, Decimal("1.5"), {}, "Decimal loads as str"),
        (Sequence[int], (1, 2), {}, "tuple loads as list"),
        (list[int] | set[int], {1}, {}, "set loads as list"),
        (str | date, date(2024, 1, 1), {}, "date loads as str"),
        (date | str, "2024-01-01", {}, "str loads as date"),
        (deque[int], deque([1], maxlen=3), {}, "'value' .* deque"),
        (datetime, datetime(2024, 1, 1, fold=1), {}, "'value' .* datetime"),  # noqa: DTZ001 - the point
        (re.Pattern[str], re.compile("a", re.IGNORECASE), {}, "'value' .* Pattern"),
        (Iterable[int], [1, 2], {}, "'value' is an iterator"),
        (Any, (number for number in range(3)), {}, "'value' is an iterator"),
        (Shortened, Shortened(number=1, rest=2), {}, r"'value\.rest'"),
        (Agreeable, Agreeable(secret=7), {}, r"'value\.secret'"),
        (Cached, looked_up(), {}, r"the private attribute 'value\._looked_up' is set"),
        (SecretStr, "hunter2", {}, "'value' is a secret, .*field_serializer"),
        (list[SecretBytes], [b"hunter2"], {}, r"'value\.0' is a secret"),
        (Secret[int], 7, {}, "'value' is a secret"),
        (int, 2**64, {}, "'value' holds an integer of more than 64 bits"),
    ],
    ids=lambda value: re.sub(r" at 0x\w+", "", str(value)),  # the same in every process
)
def test_what_would_change_on_the_way_is_refused(annotation: Any, value: Any, config: ConfigDict, says: str) -> None:
    job = job_class(annotation, config)(value=value)
    with pytest.raises(InvalidJob, match=says) as refused:
        serialize(job)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("annotation", "first", "assigned", "arrives"),
    [
        (list[int], [], (1, 2), [1, 2]),
        (int, 0, "7", 7),
        (float, 0.5, 7, 7.0),
        (Item, {"sku": ""}, {"sku": "a"}, Item(sku="a")),
        (datetime, MOMENT, "2024-01-01T00:00:00Z", datetime(2024, 1, 1, tzinfo=UTC)),
        (Annotated[str, Field(pattern=".*")], "", Level.HIGH, "high"),
    ],
)
def test_a_value_set_after_construction_is_converted_to_the_type_of_its_field(
    annotation: Any, first: Any, assigned: Any, arrives: Any
) -> None:
    job = job_class(annotation)(value=first)
    job.value = assigned
    assert carry(job) == arrives


def test_a_subclass_set_after_construction_is_refused() -> None:
    job = job_class(Item)(value=Item(sku="a"))
    job.value = SpecialItem(sku="b")
    with pytest.raises(InvalidJob, match="SpecialItem loads as Item"):
        serialize(job)


EXCLUSIONS: list[dict[str, Any]] = [{"exclude": True}]
if "exclude_if" in inspect.signature(Field).parameters:  # since pydantic 2.12
    EXCLUSIONS.append({"exclude_if": lambda value: value == 7})


@pytest.mark.parametrize("excluded", EXCLUSIONS)
def test_an_excluded_field_is_refused_unless_it_has_its_default(excluded: Any) -> None:
    kind = job_class(int, value=Field(default=5, **excluded))
    assert carry(kind(value=5)) == 5
    with pytest.raises(InvalidJob, match="'value' .* excluded"):
        serialize(kind(value=7))


def test_an_excluded_field_without_a_default_is_refused() -> None:
    with pytest.raises(InvalidJob, match="'value' is excluded, and has no default"):
        serialize(job_class(int, value=Field(exclude=True))(value=7))


def test_a_validator_that_changes_what_it_has_made_is_refused() -> None:
    def louder(cls: type, value: str) -> str:
        return value + "!"

    with pytest.raises(InvalidJob, match="'value' .* validator"):
        serialize(job_class(str, louder=field_validator("value")(classmethod(louder)))(value="hey"))  # type: ignore[arg-type]


def test_a_secret_is_stored_where_its_field_reveals_it() -> None:
    class Login(Job):
        password: SecretStr

        def handle(self) -> None:
            """Not run here."""

        @field_serializer("password", when_used="json")
        def reveal(self, password: SecretStr) -> str:
            return password.get_secret_value()

    envelope = serialize(Login(password=SecretStr("hunter2")))
    job = deserialize(envelope.name, envelope.payload)
    assert isinstance(job, Login)
    assert job.password.get_secret_value() == "hunter2"


def test_equality_of_the_application_s_own_is_not_asked() -> None:
    assert carry(job_class(Quarrelsome)(value=Quarrelsome(number=7))).number == 7


@pytest.mark.parametrize(
    ("attribute", "change", "stored"),
    [
        (PrivateAttr(default=0), lambda job: setattr(job, "_state", 5), False),
        (PrivateAttr(), lambda job: setattr(job, "_state", 5), False),
        (PrivateAttr(default_factory=dict), lambda job: job._state.update(a=1), False),
        (PrivateAttr(default=0), lambda job: None, True),
        (PrivateAttr(), lambda job: None, True),
        (PrivateAttr(default_factory=object), lambda job: None, True),
        (PrivateAttr(default_factory=time.perf_counter), lambda job: None, True),
    ],
)
def test_a_private_attribute_is_not_lost_unseen(attribute: Any, change: Callable[[Any], None], stored: bool) -> None:
    job = job_class(int, _state=attribute)(value=1)
    change(job)
    if stored:
        assert carry(job) == 1
    else:
        with pytest.raises(InvalidJob, match="private attribute '_state'"):
            serialize(job)


def test_a_private_attribute_that_the_class_sets_itself_is_no_loss() -> None:
    def started(self: Any, _context: Any) -> None:
        self._state = time.perf_counter()

    assert carry(job_class(int, _state=PrivateAttr(default=0), model_post_init=started)(value=1)) == 1


def test_a_cached_property_is_no_field() -> None:
    job = job_class(int, once=functools.cached_property(lambda self: object()))(value=1)
    assert job.once
    assert carry(job) == 1


def test_extra_values_are_kept_or_refused() -> None:
    allowing = job_class(int, ConfigDict(extra="allow"), value=Field(alias="Value"))
    job = allowing(Value=1, more=[2], value=3)
    envelope = serialize(job)
    arrived = deserialize(envelope.name, envelope.payload)
    assert (arrived.value, arrived.model_extra) == (1, {"more": [2], "value": 3})  # type: ignore[attr-defined]
    with pytest.raises(InvalidJob, match="'more'"):
        serialize(allowing(Value=1, more=date(2024, 1, 1)))


def test_a_validator_that_asks_for_aliases_gets_them() -> None:
    class Order(Job):
        order_id: int = Field(alias="orderId")

        @model_validator(mode="before")
        @classmethod
        def from_text(cls, data: Any) -> Any:
            return {"orderId": int(data["orderId"])}

        def handle(self) -> None:
            """Not run here."""

    envelope = serialize(Order(orderId=7))
    assert deserialize(envelope.name, envelope.payload) == Order(orderId=7)
