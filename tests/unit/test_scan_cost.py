"""When claims begin at the head of the index, decided by nothing but durations. The clock is the test's."""

from __future__ import annotations

import pytest

from outbox.drivers.database.claim_scan.scan_cost import LONGEST_COOLDOWN, SHARE, Cooldown, ScanCost


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def scan_cost(clock: Clock) -> ScanCost:
    return ScanCost(clock)


TRIFLE = 0.0003


def drain(
    scan_cost: ScanCost, claims: int, *, head: float, cursors: float, rest: float = 0.005, jobs: int = 100
) -> int:
    """Claims of the same size, as a backlog makes them; how many of them were from the head."""
    from_head = 0
    for _ in range(claims):
        if scan_cost.at_head:
            from_head += 1
            scan_cost.from_head(jobs, head, rest / 2, head + rest)
        else:
            scan_cost.from_cursors(jobs, cursors)
    return from_head


def made_expensive(scan_cost: ScanCost) -> ScanCost:
    drain(scan_cost, 3, head=0.1, cursors=0.001)
    assert scan_cost.expensive
    return scan_cost


# --- from the head or from the marks


def test_as_long_as_the_head_costs_no_more_claims_begin_there(scan_cost: ScanCost) -> None:
    """But for one in sixteen, which finds the same."""
    assert drain(scan_cost, 170, head=0.0012, cursors=0.001) == 160
    assert not scan_cost.expensive


def test_claims_that_continue_where_the_last_one_ended_lead_to_a_comparison_as_well(scan_cost: ScanCost) -> None:
    scan_cost.from_head(100, 0.1, 0.05, 0.2)
    for _ in range(14):
        scan_cost.from_backlog(100)
    assert scan_cost.at_head
    scan_cost.from_backlog(100)
    assert not scan_cost.at_head
    scan_cost.from_cursors(100, 0.001)
    assert scan_cost.expensive


def test_small_claims_are_compared_after_a_thousand_jobs(scan_cost: ScanCost) -> None:
    assert drain(scan_cost, 1_001, head=0.0003, cursors=0.0003, jobs=1) == 1_000


def test_a_head_that_grows_slowly_is_left_before_a_claim_costs_a_quarter_more(scan_cost: ScanCost) -> None:
    cursors, rest = 0.001, 0.005
    head = cursors
    while not scan_cost.expensive:
        head += 0.00003
        drain(scan_cost, 1, head=head, cursors=cursors, rest=rest)
        assert head + rest < 1.25 * (cursors + rest)


def test_a_new_worker_finds_out_with_its_second_claim(scan_cost: ScanCost) -> None:
    assert drain(scan_cost, 2, head=0.5, cursors=0.001) == 1
    assert scan_cost.expensive


@pytest.mark.parametrize("network", [0.0, 0.05, 0.3])
def test_a_slow_network_is_no_reason(scan_cost: ScanCost, network: float) -> None:
    """Every statement takes that much longer, the two looks and searches of a claim from the cursors as well."""
    drain(scan_cost, 100, head=0.001 + network, cursors=0.001 + network, rest=0.005 + 2 * network)
    assert not scan_cost.expensive


def test_larger_claims_take_longer_and_are_no_reason(scan_cost: ScanCost) -> None:
    drain(scan_cost, 15, head=0.001, cursors=0.001, jobs=100)
    scan_cost.from_head(500, 0.005, 0.01, 0.02)
    assert not scan_cost.at_head
    scan_cost.from_cursors(100, 0.001)
    assert not scan_cost.expensive, "a claim of 100 jobs says nothing of one of 500"


def test_a_hiccup_costs_no_more_than_one_claim_from_the_marks(scan_cost: ScanCost) -> None:
    scan_cost.from_head(100, 0.2, 0.003, 0.206)
    assert not scan_cost.at_head
    scan_cost.probed(0.0005, TRIFLE)
    scan_cost.from_cursors(100, 0.001)
    assert scan_cost.at_head, "looks are cheap, so the head is tried at once"
    scan_cost.from_head(100, 0.001, 0.003, 0.006)
    assert scan_cost.at_head
    assert not scan_cost.expensive


def test_a_hiccup_of_an_idle_look_is_nothing_and_two_of_them_are(scan_cost: ScanCost) -> None:
    scan_cost.probed(0.3, TRIFLE)
    scan_cost.probed(0.0005, TRIFLE)
    scan_cost.probed(0.3, TRIFLE)
    assert not scan_cost.expensive
    scan_cost.probed(0.3, TRIFLE)
    assert scan_cost.expensive


def test_looks_over_a_slow_network_are_no_reason(scan_cost: ScanCost) -> None:
    for _ in range(100):
        scan_cost.probed(0.06, 0.05)
    assert not scan_cost.expensive


def test_the_head_is_not_tried_while_looks_are_long(scan_cost: ScanCost) -> None:
    made_expensive(scan_cost)
    for _ in range(100):
        scan_cost.probed(0.05, TRIFLE)
        assert not scan_cost.at_head
        scan_cost.from_cursors(100, 0.001)


def test_when_the_snapshot_is_closed_claims_return_to_the_head(scan_cost: ScanCost) -> None:
    made_expensive(scan_cost)
    scan_cost.probed(0.0004, TRIFLE)
    assert scan_cost.at_head
    scan_cost.from_head(100, 0.001, 0.003, 0.006)
    assert not scan_cost.expensive


def test_a_head_tried_in_vain_is_tried_again_after_twenty_times_what_it_cost(scan_cost: ScanCost, clock: Clock) -> None:
    made_expensive(scan_cost)
    for _ in range(2):
        scan_cost.probed(0.001, TRIFLE)
        assert scan_cost.at_head
        scan_cost.from_head(100, 0.051, 0.003, 0.056)
    scan_cost.probed(0.001, TRIFLE)
    assert not scan_cost.at_head
    clock.seconds += 0.05 / SHARE - 0.01
    assert not scan_cost.at_head
    clock.seconds += 0.02
    assert scan_cost.at_head


# --- rests


def test_what_costs_much_rests_so_long_that_it_takes_its_share_of_the_time(clock: Clock) -> None:
    rest, spent, begun = Cooldown(clock), 0.0, clock.seconds
    while clock.seconds < begun + 1_000:
        if rest.over:
            clock.seconds += 0.3
            spent += 0.3
            rest.begin(0.3)
        clock.seconds += 0.01
    assert spent / (clock.seconds - begun) == pytest.approx(SHARE, rel=0.1)


def test_a_fleet_spends_no_more_than_one_worker(clock: Clock) -> None:
    rest = Cooldown(clock)
    rest.begin(0.05)
    rest.begin(0.05, workers=4)
    clock.seconds += 3.9
    assert not rest.over
    clock.seconds += 0.2
    assert rest.over


@pytest.mark.parametrize(("workers", "longest"), [(1, LONGEST_COOLDOWN), (3, 3 * LONGEST_COOLDOWN), (1_000, 60.0)])
def test_no_rest_is_longer_whatever_it_is_for(clock: Clock, workers: int, longest: float) -> None:
    rest = Cooldown(clock)
    for _ in range(2):
        rest.begin(1_000.0, workers)
    clock.seconds += longest - 0.1
    assert not rest.over
    clock.seconds += 0.2
    assert rest.over


def test_one_hiccup_leads_to_no_long_rest(clock: Clock) -> None:
    rest = Cooldown(clock)
    rest.begin(0.001)
    rest.begin(2.0)
    clock.seconds += 0.001 / SHARE + 0.001
    assert rest.over
