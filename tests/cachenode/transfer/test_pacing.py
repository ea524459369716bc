"""Back-off, budgets and windows: bounded whatever happens."""

import datetime as dt
from email.utils import format_datetime

import pytest
from hypothesis import given, strategies as st

from modelcache_api.retry_after import MAX_RETRY_AFTER_S, retry_after_s
from modelcache_node.transfer.pacing import (
    BACKOFF_CAP_S,
    RETRY_BURST,
    RETRY_TRICKLE_PER_S,
    SHRINK_PAUSE_S,
    RateLimit,
    RetryBudget,
    Window,
    backoff_s,
    pause_s,
)

NOW = dt.datetime(2026, 11, 24, 8, 0, tzinfo=dt.UTC)


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_back_off_is_jittered_over_its_whole_ceiling_and_capped(failures, share):
    delay_s = backoff_s(failures, lambda low, high: low + share * (high - low))
    assert 0 <= delay_s <= BACKOFF_CAP_S


def test_back_off_doubles_its_ceiling():
    ceilings = [backoff_s(n, lambda _low, high: high) for n in range(1, 10)]
    assert ceilings[:4] == pytest.approx([0.2, 0.4, 0.8, 1.6])
    assert ceilings[-1] == BACKOFF_CAP_S


def test_a_retry_after_in_seconds_is_honoured():
    assert retry_after_s("7", NOW) == 7.0


def test_a_retry_after_as_a_date_is_honoured():
    assert retry_after_s(format_datetime(NOW + dt.timedelta(seconds=30), usegmt=True), NOW) == 30.0


def test_a_retry_after_in_the_past_means_now():
    assert retry_after_s(format_datetime(NOW - dt.timedelta(days=1), usegmt=True), NOW) == 0.0


@given(st.one_of(st.text(max_size=40), st.integers(0, 10**30).map(str)))
def test_whatever_an_origin_writes_the_wait_is_bounded(text):
    asked_s = retry_after_s(text, NOW)
    assert asked_s is None or 0 <= asked_s <= MAX_RETRY_AFTER_S


def test_a_pause_is_never_shorter_than_what_the_origin_asked_for():
    assert pause_s(1, 5.0, lambda low, _high: low) == 5.0


@given(st.lists(st.booleans(), max_size=300))
def test_retries_without_waiting_are_at_most_a_burst_and_a_tenth_of_successes(succeeds):
    budget, free, successes = RetryBudget(0.0), 0, 0
    for success in succeeds:
        if success:
            budget.earn()
            successes += 1
        elif budget.spend(0.0) == 0:
            free += 1
    assert free <= RETRY_BURST + successes / 10


def test_an_empty_budget_still_looks_now_and_then():
    budget = RetryBudget(0.0)
    waits = [budget.spend(0.0) for _ in range(int(RETRY_BURST) + 4)]
    assert waits[-4:] == pytest.approx([n / RETRY_TRICKLE_PER_S for n in range(1, 5)])


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 10)), max_size=200))
def test_a_window_stays_between_one_and_its_ceiling(events):
    window, now = Window(16), 0.0
    for is_throttled, pause in events:
        now += pause
        if is_throttled:
            window.throttled(now)
        else:
            window.succeeded()
        assert 1 <= window.limit <= 16


def test_a_burst_of_refusals_halves_a_window_once():
    window = Window(16)
    for _ in range(16):
        window.throttled(100.0)
    assert window.limit == 8
    window.throttled(100.0 + SHRINK_PAUSE_S)
    assert window.limit == 4


def test_a_window_grows_by_about_one_per_round():
    window = Window(16)
    window.throttled(0.0)
    for _ in range(9):
        window.succeeded()
    assert window.limit == 9


@given(st.lists(st.integers(1, 5_000_000), min_size=1, max_size=60))
def test_a_rate_limit_holds_over_time_whatever_the_ranges(sizes):
    rate, now, total = 1_000_000.0, 0.0, 0
    limit = RateLimit(rate, now)
    for size in sizes:
        now += limit.wait_s(now) + 1e-9
        limit.take(size)
        total += size
    # What was let through before `now`, without the last range, fits the rate and one burst.
    assert total - sizes[-1] <= rate * now + rate + 1


def test_without_a_limit_nothing_waits():
    limit = RateLimit(None, 0.0)
    limit.take(10**12)
    assert limit.wait_s(0.0) == 0.0
