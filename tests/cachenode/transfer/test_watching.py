"""A connection is given up when it stalls or crawls, and only then."""

from modelcache_node.transfer.limits import MoverLimits
from modelcache_node.transfer.watching import Watch

LIMITS = MoverLimits(inactivity_timeout_s=30.0, min_bytes_per_s=1000, speed_window_s=60.0)


def test_a_connection_that_brings_bytes_is_kept():
    watch = Watch(LIMITS, 0, 0.0)
    assert all(watch.verdict(second * 2000, float(second)) is None for second in range(1, 600))


def test_a_silent_connection_is_given_up_after_its_time():
    watch = Watch(LIMITS, 0, 0.0)
    assert watch.verdict(10, 1.0) is None
    assert watch.verdict(10, 30.9) is None
    assert "stalled" in watch.verdict(10, 31.0)


def test_a_trickle_is_given_up_although_it_never_stalls():
    watch = Watch(LIMITS, 0, 0.0)
    verdicts = [watch.verdict(second, float(second)) for second in range(1, 61)]
    assert verdicts[:-1] == [None] * 59
    assert "too slow" in verdicts[-1]


def test_earlier_ranges_of_a_connection_do_not_speak_for_this_one():
    watch = Watch(LIMITS, 10**9, 0.0)
    assert "stalled" in watch.verdict(10**9, 30.0)
