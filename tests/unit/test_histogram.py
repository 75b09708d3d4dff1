"""Histograms of durations: their buckets, exact merging, percentiles."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import pairwise

import pytest

from outbox.histogram import BOUNDS, BUCKETS, LONGEST, Histogram, bucket_of


def of(*durations: float) -> Histogram:
    histogram = Histogram()
    for seconds in durations:
        histogram.add(seconds)
    return histogram


def test_bounds_grow_by_the_square_root_of_two_from_a_millisecond_to_a_day() -> None:
    assert BOUNDS[0] == 0.001
    assert all(after / before == pytest.approx(2**0.5) for before, after in pairwise(BOUNDS))
    assert BOUNDS[-2] < LONGEST
    assert BOUNDS[-1] >= LONGEST


@pytest.mark.parametrize("number", range(BUCKETS - 1))
def test_a_bound_is_in_its_own_bucket_and_a_little_more_in_the_next(number: int) -> None:
    assert bucket_of(BOUNDS[number]) == number
    assert bucket_of(BOUNDS[number] * 1.001) == number + 1


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 1e-9, 0.001])
def test_what_is_shorter_is_in_the_first_bucket(seconds: float) -> None:
    assert bucket_of(seconds) == 0


def test_what_is_longer_is_in_the_last_bucket() -> None:
    assert bucket_of(30 * LONGEST) == BUCKETS - 1


def test_many_at_once_are_counted_as_one_by_one() -> None:
    random_ones = [random.Random(5).randrange(1, 1 << 20) / 1024 for _ in range(500)]
    durations = [*random_ones, *BOUNDS, 30 * LONGEST, 40 * LONGEST, 0.0, -0.5, -2.0, 0.25, 0.25]
    together = Histogram()
    together.add_all(durations)
    together.add_all(())
    one_by_one = of(*durations)
    assert together.buckets == one_by_one.buckets == Counter(map(bucket_of, durations))
    assert together.total == pytest.approx(one_by_one.total)
    assert together.total == pytest.approx(sum(each for each in durations if each > 0))


def test_merging_in_any_order_is_the_same_as_counting_all_together() -> None:
    # Halves, quarters: sums of floats that are exact.
    durations = [random.Random(7).randrange(1, 1 << 20) / 1024 for _ in range(3_000)]
    together = of(*durations)
    parts = [of(*durations[start::7]) for start in range(7)]
    assert Histogram.merged(parts) == together
    assert Histogram.merged(reversed(parts)) == together


@pytest.mark.parametrize("share", [0.5, 0.9, 0.95, 0.99])
def test_a_percentile_is_within_one_bucket_of_the_true_one(share: float) -> None:
    durations = sorted(random.Random(3).lognormvariate(-2, 2) for _ in range(10_000))
    true = durations[int(share * len(durations))]
    found = of(*durations).percentile(share)
    assert found is not None
    assert true / 1.5 < found < true * 1.5


def test_nothing_has_no_mean_and_no_percentile() -> None:
    assert (Histogram().mean, Histogram().percentile(0.5), Histogram().count) == (None, None, 0)


def test_the_mean_is_exact() -> None:
    assert of(1.0, 2.0, 6.0).mean == 3.0


@pytest.mark.parametrize("share", [-0.1, 1.1, 95])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        of(1.0).percentile(share)


def test_it_survives_json() -> None:
    histogram = of(0.5, 0.5, 100)
    assert Histogram.load(json.loads(json.dumps(histogram.dump()))) == histogram


@pytest.mark.parametrize(
    "value",
    [None, [], "x", {"buckets": None}, {"buckets": {"x": 1, "9999": 2, "-1": 3, "1": "2", "2": -1}, "total": "9"}],
    ids=str,
)
def test_what_is_none_loads_as_empty(value: object) -> None:
    assert Histogram.load(value) == Histogram()
