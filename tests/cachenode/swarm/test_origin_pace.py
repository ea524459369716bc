"""How many chunks nodes read from an origin at once: few of a slow one, many of a fast one."""

import pytest

from modelcache_node.swarm.crowd import Crowd, crowd_of
from modelcache_node.swarm.neighbours import Neighbour
from modelcache_node.swarm.origin_pace import (
    AWAIT_S,
    FIRST_LEVEL,
    HOLD_CHUNKS,
    MAX_AWAIT_S,
    OriginPace,
)

MOST = 16
NODES = 2**FIRST_LEVEL


def pace(uniform: float = 0.0) -> OriginPace:
    made = OriginPace(lambda: uniform)
    made.allowed(Crowd(NODES, 1), 0.0, others_read=True, others_have=True)
    return made


def read(made: OriginPace, n_chunks: int, chunk_s) -> list[int]:
    """Chunks come one after the other, each node reading its share; what is allowed after each."""
    allowed = []
    for number in range(n_chunks):
        share = made.allowed(Crowd(NODES, 1), float(number + 1), others_read=True, others_have=True)
        crowd = Crowd(NODES, NODES * share - 1)
        made.took(chunk_s(NODES * share), float(number + 1), crowd, MOST)
        allowed.append(
            made.allowed(Crowd(NODES, 1), float(number + 1), others_read=True, others_have=True)
        )
    return allowed


def test_an_origin_with_a_rate_for_each_request_is_soon_used_to_the_full():
    assert read(pace(), 40, lambda n_chunks: 0.3)[-1] == MOST


def test_an_origin_with_one_rate_for_all_is_not_crowded():
    allowed = read(pace(), HOLD_CHUNKS // 2, lambda n_chunks: 0.1 * n_chunks)
    assert max(allowed) == 2  # once, to see that it brings nothing
    assert allowed[-1] == 2**FIRST_LEVEL // NODES


def test_an_origin_that_became_faster_is_tried_again():
    made = pace()
    read(made, HOLD_CHUNKS, lambda n_chunks: 0.1 * n_chunks)
    assert read(made, 2 * HOLD_CHUNKS, lambda n_chunks: 0.1)[-1] == MOST


def test_who_reads_alone_is_not_bounded():
    assert (
        OriginPace(lambda: 0.9).allowed(Crowd(1, 1), 0.0, others_read=True, others_have=False)
        > MOST
    )


def begins_at(made: OriginPace, reads_until: float, *, have_from: float = 1e9) -> float:
    """Asked each tenth of a second, when a node of many begins; another reads, and has a chunk."""
    crowd = Crowd(4 * NODES, 1)
    for tenth in range(10 * round(2 * MAX_AWAIT_S)):
        now = tenth / 10
        is_read, is_there = now < reads_until, now >= have_from
        if made.allowed(crowd, now, others_read=is_read, others_have=is_there):
            return now
    raise AssertionError("it never begins")


def test_of_many_nodes_some_begin_and_the_others_wait_for_the_first_chunk():
    assert begins_at(OriginPace(lambda: 0.1), 6.0) == 0.0
    assert begins_at(OriginPace(lambda: 0.9), 6.0, have_from=6.0) > 6.0


def test_a_node_begins_if_nobody_is_seen_to_read():
    assert begins_at(OriginPace(lambda: 0.9), 0.0) == AWAIT_S
    assert begins_at(OriginPace(lambda: 0.9), 6.0) == pytest.approx(5.9 + AWAIT_S)


def test_a_reader_that_hangs_is_not_waited_for():
    assert begins_at(OriginPace(lambda: 0.9), 1e9) == MAX_AWAIT_S


def test_a_node_with_less_than_one_chunk_as_its_share_rests_after_each():
    crowd = Crowd(4 * 2**FIRST_LEVEL, 1)
    made = OriginPace(lambda: 0.0)
    assert made.allowed(crowd, 0.0, others_read=True, others_have=False) == 1
    made.took(1.0, 1.0, crowd, MOST)
    assert made.allowed(crowd, 2.4, others_read=True, others_have=True) == 0
    assert made.allowed(crowd, 2.5, others_read=True, others_have=True) == 1


@pytest.mark.parametrize("scale", [1, 3])
def test_readers_that_are_no_neighbours_are_like_those_that_are(scale):
    reading = Neighbour("a", is_heard=True, is_absent=False, can_fetch=True, fetching=0b110)
    complete = Neighbour("b", is_heard=True, is_absent=False, can_fetch=True, bits=0b111)
    unheard, gone = Neighbour("c"), Neighbour("d", is_heard=True)
    stranger = Neighbour("e", is_heard=True, is_absent=False, can_fetch=True, fetching=0b1)
    known = [reading, complete, unheard, gone, stranger]
    group = ["me", "a", "b", "c", "d"] + [f"far-{n}" for n in range(5 * (scale - 1))]
    assert crowd_of(known, group, 0b111, 1) == Crowd(3 * scale, 3 * scale)
