from __future__ import annotations

import pytest

from outbox import Backoff
from outbox.errors import InvalidOption


def test_a_number_is_the_same_delay_every_time() -> None:
    assert [Backoff(3).delay(attempt) for attempt in (1, 2, 50)] == [3, 3, 3]


def test_the_last_value_of_a_list_repeats() -> None:
    assert [Backoff([1, 5, 30]).delay(attempt) for attempt in (1, 2, 3, 4, 99)] == [1, 5, 30, 30, 30]


def test_an_exponential_backoff_grows_to_its_maximum() -> None:
    assert Backoff.exponential(1, factor=3, maximum=20, jitter=0).delays == (1, 3, 9, 20)


def test_jitter_stays_within_its_share_and_is_not_constant() -> None:
    delays = {Backoff(100, jitter=0.1).delay(1) for _ in range(200)}
    assert len(delays) > 1
    assert all(90 <= delay <= 110 for delay in delays)


@pytest.mark.parametrize(
    "delays", [-1, [1, -1], float("nan"), float("inf"), [True], ["1"], 10**10, None, "15", b"15", {1}]
)
def test_what_is_no_delay_is_refused(delays: object) -> None:
    with pytest.raises(InvalidOption, match="seconds"):
        Backoff(delays)  # type: ignore[arg-type]


@pytest.mark.parametrize("jitter", [-0.1, 1.1, float("nan"), "0.1", None])
def test_a_jitter_is_a_share(jitter: object) -> None:
    with pytest.raises(InvalidOption, match="share"):
        Backoff(1, jitter=jitter)  # type: ignore[arg-type]
