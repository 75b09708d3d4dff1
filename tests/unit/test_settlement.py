"""What of an exception is stored, whatever the exception and its class are like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from outbox.settlement import Failure


class Nameless(type):
    def __getattribute__(cls, name: str) -> Any:
        if name in {"__module__", "__qualname__"}:
            raise RuntimeError("no name")
        return super().__getattribute__(name)


class Secretive(Exception, metaclass=Nameless):
    pass


class Text(str):
    __slots__ = ()

    def encode(self, *_: Any) -> bytes:
        raise RuntimeError("not to be encoded")


class SaysText(Exception):
    def __str__(self) -> str:
        return Text("of a kind of its own")


def named(**names: Any) -> Exception:
    made: Exception = type("Made", (Exception,), names)("kept")
    return made


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (SaysText, f"{__name__}.SaysText", "of a kind of its own"),
        (lambda: named(__module__="shop", __qualname__="Half\ud800"), r"shop.Half\ud800", "kept"),
        (lambda: named(__module__="shop\udcff", __qualname__="Half"), r"shop\udcff.Half", "kept"),
        (lambda: named(__module__=None, __qualname__="Lost"), "None.Lost", "kept"),
    ],
)
def test_every_exception_can_be_stored(make: Callable[[], Exception], kind: str, message: str) -> None:
    try:
        raise make()
    except Exception as error:
        failure = Failure.of(error)
    assert (failure.type, failure.message) == (kind, message)
    assert "test_every_exception_can_be_stored" in failure.traceback
    for text in (failure.type, failure.message, failure.traceback, failure.summary):
        assert text.encode().decode() == text


def test_a_class_that_does_not_tell_its_name_is_called_what_it_was_defined_as() -> None:
    try:
        raise Secretive("kept")
    except Secretive as error:
        failure = Failure.of(error)
    assert (failure.type, failure.message) == ("Secretive", "kept")
