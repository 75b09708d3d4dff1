"""When claims begin at the head of the index, decided by nothing but durations. The clock is the test's."""

from __future__ import annotations

import pytest

from outbox.drivers.database.thrift import LONGEST_REST, SHARE, Rest, Thrift


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def thrift(clock: Clock) -> Thrift:
    return Thrift(clock)


TRIFLE = 0.0003


def drain(thrift: Thrift, claims: int, *, head: float, marked: float, rest: float = 0.005, jobs: int = 100) -> int:
    """Claims of the same size, as a backlog makes them; how many of them were from the head."""
    from_head = 0
    for _ in range(claims):
        if thrift.at_head:
            from_head += 1
            thrift.from_head(jobs, head, rest / 2, head + rest)
        else:
            thrift.from_marks(jobs, marked)
    return from_head


def made_dear(thrift: Thrift) -> Thrift:
    drain(thrift, 3, head=0.1, marked=0.001)
    assert thrift.dear
    return thrift


# --- from the head or from the marks


def test_as_long_as_the_head_costs_no_more_claims_begin_there(thrift: Thrift) -> None:
    """But for one in sixteen, which finds the same."""
    assert drain(thrift, 170, head=0.0012, marked=0.001) == 160
    assert not thrift.dear


def test_claims_that_went_on_where_the_last_one_ended_lead_to_a_comparison_as_well(thrift: Thrift) -> None:
    thrift.from_head(100, 0.1, 0.05, 0.2)
    for _ in range(14):
        thrift.went_on(100)
    assert thrift.at_head
    thrift.went_on(100)
    assert not thrift.at_head
    thrift.from_marks(100, 0.001)
    assert thrift.dear


def test_small_claims_are_compared_after_a_thousand_jobs(thrift: Thrift) -> None:
    assert drain(thrift, 1_001, head=0.0003, marked=0.0003, jobs=1) == 1_000


def test_a_head_that_grows_slowly_is_left_before_a_claim_costs_a_quarter_more(thrift: Thrift) -> None:
    marked, rest = 0.001, 0.005
    head = marked
    while not thrift.dear:
        head += 0.00003
        drain(thrift, 1, head=head, marked=marked, rest=rest)
        assert head + rest < 1.25 * (marked + rest)


def test_a_new_worker_finds_out_with_its_second_claim(thrift: Thrift) -> None:
    assert drain(thrift, 2, head=0.5, marked=0.001) == 1
    assert thrift.dear


@pytest.mark.parametrize("network", [0.0, 0.05, 0.3])
def test_a_slow_network_is_no_reason(thrift: Thrift, network: float) -> None:
    """Every statement takes that much longer, the two looks and searches of a marked claim as well."""
    drain(thrift, 100, head=0.001 + network, marked=0.001 + network, rest=0.005 + 2 * network)
    assert not thrift.dear


def test_larger_claims_take_longer_and_are_no_reason(thrift: Thrift) -> None:
    drain(thrift, 15, head=0.001, marked=0.001, jobs=100)
    thrift.from_head(500, 0.005, 0.01, 0.02)
    assert not thrift.at_head
    thrift.from_marks(100, 0.001)
    assert not thrift.dear, "a claim of 100 jobs says nothing of one of 500"


def test_a_hiccup_costs_no_more_than_one_claim_from_the_marks(thrift: Thrift) -> None:
    thrift.from_head(100, 0.2, 0.003, 0.206)
    assert not thrift.at_head
    thrift.looked(0.0005, TRIFLE)
    thrift.from_marks(100, 0.001)
    assert thrift.at_head, "looks are cheap, so the head is tried at once"
    thrift.from_head(100, 0.001, 0.003, 0.006)
    assert thrift.at_head
    assert not thrift.dear


def test_a_hiccup_of_an_idle_look_is_nothing_and_two_of_them_are(thrift: Thrift) -> None:
    thrift.looked(0.3, TRIFLE)
    thrift.looked(0.0005, TRIFLE)
    thrift.looked(0.3, TRIFLE)
    assert not thrift.dear
    thrift.looked(0.3, TRIFLE)
    assert thrift.dear


def test_looks_over_a_slow_network_are_no_reason(thrift: Thrift) -> None:
    for _ in range(100):
        thrift.looked(0.06, 0.05)
    assert not thrift.dear


def test_the_head_is_not_tried_while_looks_are_long(thrift: Thrift) -> None:
    made_dear(thrift)
    for _ in range(100):
        thrift.looked(0.05, TRIFLE)
        assert not thrift.at_head
        thrift.from_marks(100, 0.001)


def test_when_the_snapshot_is_closed_claims_return_to_the_head(thrift: Thrift) -> None:
    made_dear(thrift)
    thrift.looked(0.0004, TRIFLE)
    assert thrift.at_head
    thrift.from_head(100, 0.001, 0.003, 0.006)
    assert not thrift.dear


def test_a_head_tried_in_vain_is_tried_again_after_twenty_times_what_it_cost(thrift: Thrift, clock: Clock) -> None:
    made_dear(thrift)
    for _ in range(2):
        thrift.looked(0.001, TRIFLE)
        assert thrift.at_head
        thrift.from_head(100, 0.051, 0.003, 0.056)
    thrift.looked(0.001, TRIFLE)
    assert not thrift.at_head
    clock.seconds += 0.05 / SHARE - 0.01
    assert not thrift.at_head
    clock.seconds += 0.02
    assert thrift.at_head


# --- rests


def test_what_costs_much_rests_so_long_that_it_takes_its_share_of_the_time(clock: Clock) -> None:
    rest, spent, begun = Rest(clock), 0.0, clock.seconds
    while clock.seconds < begun + 1_000:
        if rest.over:
            clock.seconds += 0.3
            spent += 0.3
            rest.begin(0.3)
        clock.seconds += 0.01
    assert spent / (clock.seconds - begun) == pytest.approx(SHARE, rel=0.1)


def test_a_fleet_spends_no_more_than_one_worker(clock: Clock) -> None:
    rest = Rest(clock)
    rest.begin(0.05)
    rest.begin(0.05, sharers=4)
    clock.seconds += 3.9
    assert not rest.over
    clock.seconds += 0.2
    assert rest.over


@pytest.mark.parametrize(("sharers", "longest"), [(1, LONGEST_REST), (3, 3 * LONGEST_REST), (1_000, 60.0)])
def test_no_rest_is_longer_whatever_it_is_for(clock: Clock, sharers: int, longest: float) -> None:
    rest = Rest(clock)
    for _ in range(2):
        rest.begin(1_000.0, sharers)
    clock.seconds += longest - 0.1
    assert not rest.over
    clock.seconds += 0.2
    assert rest.over


def test_one_hiccup_leads_to_no_long_rest(clock: Clock) -> None:
    rest = Rest(clock)
    rest.begin(0.001)
    rest.begin(2.0)
    clock.seconds += 0.001 / SHARE + 0.001
    assert rest.over
