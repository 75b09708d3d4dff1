"""What a request asks for, in bounds: the parameters of a page, and the fields of a form."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from urllib.parse import parse_qsl
from uuid import UUID

from starlette.requests import Request

from outbox.console.time_spans import parse_span
from outbox.errors import InvalidOption
from outbox.ids import JobId
from outbox.web.security import LONGEST_QUERY
from outbox.web.sent_forms import FIELD

LONGEST_VALUE = 500
"""Characters of one parameter."""
PAGE_SIZE = 50
LARGEST_PAGE = 200
_MOST_FILTERS, _MOST_FIELDS = 20, 200
"""Values of a URL, and of a form."""
_LONGEST_SPAN = 10 * 365 * 86_400.0


class Parameters:
    """Named values of a request. Empty ones count as left out.

    Raises:
        InvalidOption: there are others than ``known``, one is given twice, or one is too long.
    """

    def __init__(self, values: Mapping[str, str], known: Collection[str], form: JobId | None = None) -> None:
        self._values = values
        self._known = known
        self.form = form
        """The id of the form, if it has one."""

    @classmethod
    def of_url(cls, request: Request, known: Collection[str]) -> Parameters:
        query = request.scope["query_string"]
        if len(query) > LONGEST_QUERY:
            raise InvalidOption(f"the address has {len(query):,} characters after its ?: at most {LONGEST_QUERY:,}")
        return cls(_read(query.decode("latin-1"), known, LONGEST_VALUE, _MOST_FILTERS), known)

    @classmethod
    def of_form(cls, body: bytes, known: Collection[str], longest: int = LONGEST_VALUE) -> Parameters:
        """``longest`` is the limit of one field, in characters."""
        values = _read(body.decode("latin-1"), known, longest, _MOST_FIELDS, hidden=FIELD)
        form = values.pop(FIELD, None)
        return cls(values, known, None if form is None else parse_id(form))

    def text(self, name: str) -> str | None:
        return self._values.get(name)

    def beginning_with(self, prefix: str) -> dict[str, str]:
        """The values whose names begin with ``prefix``, by the rest of their names."""
        return {name.removeprefix(prefix): value for name, value in self._values.items() if name.startswith(prefix)}

    def required(self, name: str) -> str:
        """
        Raises:
            InvalidOption: it is left out.
        """
        value = self._values.get(name)
        if value is None:
            raise InvalidOption(f"{name} is missing: go back to the page, and try again from there")
        return value

    def whole(self, name: str, default: int, most: int) -> int:
        """A whole number from 1 to ``most``."""
        text = self._values.get(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= most):
            raise InvalidOption(f"{name} is a whole number from 1 to {most:,}, not {_shown(text)}")
        return int(text)

    @property
    def size(self) -> int:
        """How many rows a page has."""
        return self.whole("limit", PAGE_SIZE, LARGEST_PAGE)

    def span(self, name: str) -> float | None:
        """Seconds of ``90s``, ``30m``, ``2h``, ``3d`` or ``1w``."""
        text = self._values.get(name)
        if text is None:
            return None
        seconds = parse_span(text)
        if seconds is None or not 0 <= seconds <= _LONGEST_SPAN:
            raise InvalidOption(f"{name} is a time such as 30m, 2h or 3d, not {_shown(text)}")
        return seconds

    def job_id(self, name: str) -> JobId | None:
        text = self._values.get(name)
        return None if text is None else parse_id(text)

    def given(self) -> dict[str, str]:
        """The values of all parameters, empty where one is left out: for links that change one of them."""
        return {name: self._values.get(name, "") for name in self._known}


def parse_id(text: str) -> JobId:
    """
    Raises:
        InvalidOption: it is no id.
    """
    try:
        return JobId(int=UUID(text).int)
    except ValueError:
        raise InvalidOption(f"{_shown(text)} is no id: an id is a UUID of 36 characters") from None


def _shown(text: str) -> str:
    return repr(text[:60])


def _read(encoded: str, known: Collection[str], longest: int, most: int, hidden: str | None = None) -> dict[str, str]:
    try:
        pairs = parse_qsl(encoded, keep_blank_values=True, max_num_fields=most, errors="strict")
    except ValueError:
        raise InvalidOption(f"what the browser sent cannot be read, or has more than {most} values") from None
    values: dict[str, str] = {}
    for name, value in pairs:
        if name not in known and name != hidden:
            there = ", ".join(sorted(known)) or "none"
            raise InvalidOption(f"there is no filter {_shown(name)} on this page; there are: {there}")
        if name in values:
            raise InvalidOption(f"{name} is given twice")
        if len(value) > longest:
            raise InvalidOption(f"{name} has {len(value):,} characters: at most {longest:,}")
        values[name] = value
    return {name: value for name, value in values.items() if value.strip()}
