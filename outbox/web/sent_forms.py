"""Forms that were sent: each is carried out once, also where it is sent again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from starlette.responses import Response

from outbox.errors import RepeatedAction
from outbox.ids import JobId

FIELD = "form"
"""The hidden field with the id that a form was given when its page was made."""
_MOST_KEPT = 10_000


class SentForms:
    """Those of this process. A database knows the forms of other processes by its audit log; Redis has none."""

    def __init__(self) -> None:
        self._sent: dict[JobId, None] = {}

    async def carry_out(self, form: JobId | None, act: Callable[[], Awaitable[Response]]) -> Response:
        """The response of ``act``. A form whose action fails, or shows the form once more, may be sent again. Without
        an id, which programs may leave out, nothing is known of a form.

        Raises:
            RepeatedAction: it was sent before.
        """
        if form is None:
            return await act()
        if form in self._sent:
            raise RepeatedAction("this form was sent before: what it asks for is done, or is being done")
        self._sent[form] = None
        if len(self._sent) > _MOST_KEPT:
            del self._sent[next(iter(self._sent))]
        # What is cancelled goes on: the form stays sent.
        try:
            response = await act()
        except Exception:
            self._sent.pop(form, None)
            raise
        if response.status_code != HTTPStatus.SEE_OTHER:
            self._sent.pop(form, None)
        return response
