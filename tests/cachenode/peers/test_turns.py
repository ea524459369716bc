"""Uploads take turns, and nobody who receives slowly holds the others up."""

import pytest

from modelcache_node.peers.turns import AT_ONCE, HELD_UP, Turns


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def turns(clock):
    return Turns(clock)


def test_a_few_go_on_at_once_and_the_rest_in_the_order_of_their_requests(turns):
    names = [f"upload-{number}" for number in range(AT_ONCE + 2)]
    assert [turns.may_go_on(name) for name in names] == [True] * AT_ONCE + [False] * 2
    assert turns.may_go_on(names[0])
    turns.end(names[0], is_whole=True)
    assert not turns.may_go_on(names[-1])
    assert turns.in_order([names[-1], names[-2], "other"]) == ["other", names[-2], names[-1]]
    assert turns.may_go_on(names[-2])
    assert not turns.may_go_on(names[-1])


def test_who_gives_up_while_waiting_lets_the_next_one_pass(turns):
    for number in range(AT_ONCE):
        turns.may_go_on(number)
    assert not turns.may_go_on("gone")
    assert not turns.may_go_on("next")
    turns.end("gone", is_whole=False)
    turns.end(0, is_whole=False)
    assert turns.may_go_on("next")


def test_who_receives_slowly_is_passed(turns, clock):
    turns.may_go_on("first")
    clock.now_s = 1.0
    turns.end("first", is_whole=True)
    for number in range(AT_ONCE):
        turns.may_go_on(number)
    assert not turns.may_go_on("next")
    clock.now_s += HELD_UP
    assert turns.may_go_on("next")
    assert turns.may_go_on(0)
