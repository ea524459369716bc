"""Urgent ranges hold up all others, for a while, and never for more than half of the time."""

from collections.abc import Callable

from modelcache_node.transfer.holding import LONGEST_S, Holding


class Line:
    """What workers were told, and a clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0
        self.told: list[bool] = []
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.holding = Holding(self._tell, clock=lambda: self.now, call_later=self._call_later)

    def _tell(self, *, is_on: bool) -> None:
        self.told.append(is_on)

    def _call_later(self, delay_s: float, action: Callable[[], None]) -> None:
        self.later.append((self.now + delay_s, action))

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        due = [action for at, action in self.later if at <= self.now]
        self.later = [one for one in self.later if one[0] > self.now]
        for action in due:
            action()


def test_others_are_held_up_while_something_urgent_is_under_way() -> None:
    line = Line()
    line.holding.begin(1)
    line.holding.begin(2)
    line.holding.end(1)
    assert line.told == [True]
    line.holding.end(2)
    assert line.told == [True, False]


def test_the_end_of_what_is_not_urgent_releases_nothing() -> None:
    line = Line()
    line.holding.begin(1)
    line.holding.end(99)
    assert line.told == [True]


def test_a_hold_ends_by_itself() -> None:
    line = Line()
    line.holding.begin(1)
    line.pass_time(LONGEST_S)
    assert line.told == [True, False]
    line.holding.end(1)
    assert line.told == [True, False]


def test_after_a_hold_others_have_as_long_for_themselves() -> None:
    line = Line()
    line.holding.begin(1)
    line.pass_time(2.0)
    line.holding.end(1)
    line.pass_time(1.9)
    line.holding.begin(2)
    assert line.told == [True, False]
    line.holding.end(2)
    line.pass_time(0.1)
    line.holding.begin(3)
    assert line.told == [True, False, True]
