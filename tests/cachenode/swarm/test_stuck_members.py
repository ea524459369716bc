"""Members that say they see to a chunk and do not: nobody waits for them for ever."""

import random
from array import array
from dataclasses import replace

import pytest

from modelcache_api.chunk_slots import ChunkSlots
from modelcache_api.have_map import HaveMap
from modelcache_node.swarm.asks import Failure
from modelcache_node.swarm.neighbourhood import START_WAIT_S
from modelcache_node.swarm.neighbours import FIRST_TIMEOUT_S, MIN_TIMEOUT_S, STUCK_S
from modelcache_node.swarm.origin_duty import (
    HANDOVER_CHUNK_TIMES,
    SEEN_TO_CHUNK_TIMES,
    UNKNOWN_CHUNK_S,
    ClaimState,
)
from modelcache_node.swarm.policy import Swarm

N = 8
SLOTS = ChunkSlots((("c" * 64, N),))
NOTHING = HaveMap(
    instance=5, since=0, version=0, n_slots=N, present=array("I"), crc32c=array("I"), can_fetch=True
)


def swarm(*peers: str) -> Swarm:
    policy = Swarm("me", SLOTS, instance=1, uniform=random.Random(7).random, now=0.0)
    policy.set_members(dict.fromkeys(peers, 1.0), ["me", *peers])
    policy.set_can_fetch(0.0, can_fetch=True)
    policy.want(range(N))
    return policy


def holding(slots: range, crc32c: int = 100) -> HaveMap:
    present = array("I", slots)
    words = array("I", [crc32c + slot for slot in slots])
    return replace(
        NOTHING, version=len(slots), present=present, crc32c=words, vouched=(1 << len(slots)) - 1
    )


def read_all_of_its_own(policy: Swarm, now: float) -> None:
    while (ask := policy.next_ask(now)) is not None:
        policy.came(ask, 100 + ask.slot, 0, now)


@pytest.mark.parametrize("state", [ClaimState.UNDER_WAY, ClaimState.SEEN_TO])
def test_what_an_elected_node_never_comes_to_an_end_with_is_read_here(state):
    policy = swarm("a")
    fetching = array("I", range(N))
    now = START_WAIT_S
    read_all_of_its_own(policy, now)
    while now < START_WAIT_S + 2 * STUCK_S + N * SEEN_TO_CHUNK_TIMES * UNKNOWN_CHUNK_S:
        policy.hear("a", replace(NOTHING, fetching=fetching), now)
        if (claim := policy.next_claim(now)) is not None:
            policy.claim_answered(claim, [state] * len(claim.slots), now)
        read_all_of_its_own(policy, now)
        now += 1.0
    assert policy.holdings.bits == (1 << N) - 1


def test_what_a_node_reads_that_lost_its_grants_is_left_to_it_no_longer():
    policy = swarm("a")
    fetching = array("I", range(N))
    policy.hear("a", replace(NOTHING, fetching=fetching), 1.0)
    assert policy.next_ask(START_WAIT_S) is None
    policy.hear("a", replace(NOTHING, fetching=fetching, can_fetch=False), START_WAIT_S)
    read_all_of_its_own(policy, START_WAIT_S)
    assert policy.holdings.bits == (1 << N) - 1


def test_a_chunk_that_the_origin_never_sends_is_taken_from_a_peer_at_the_end():
    policy = swarm("a")
    policy.duty.take((1 << N) - 1)
    stuck = policy.next_ask(START_WAIT_S)
    assert stuck.peer is None
    late = START_WAIT_S + STUCK_S + 1.0
    policy.hear("a", holding(range(N)), late)
    while (ask := policy.next_ask(late)) is not None:
        outcome = policy.came(ask, 100 + ask.slot, 0, late)
        if ask.slot == stuck.slot:
            assert ask.peer == "a"
            assert outcome.superseded == (stuck,)
    assert policy.holdings.has(stuck.slot)


def test_a_first_chunk_has_time_to_come_over_a_slow_link():
    policy = swarm("a")
    policy.hear("a", holding(range(N)), 0.0)
    ask = policy.next_ask(0.0)
    assert ask.timeout_s == FIRST_TIMEOUT_S
    policy.came(ask, 100 + ask.slot, 0, 0.1)
    assert policy.next_ask(0.1).timeout_s == MIN_TIMEOUT_S


def test_what_a_peer_keeps_for_another_source_is_read_from_the_origin():
    policy = swarm("a")
    policy.hear("a", holding(range(N)), 0.0)
    ask = policy.next_ask(0.0)
    policy.failed(ask, Failure.APART, 0.1)
    assert policy.duty.own(0.1) >> ask.slot & 1


def test_while_a_blob_is_compared_with_its_checksum_nobody_s_word_drops_a_chunk_of_it():
    policy = swarm("a")
    for slot in range(N):
        policy.hold(slot, 100 + slot, 0, vouched=False)
    policy.holdings.freeze(range(N))
    policy.hear("a", holding(range(N), crc32c=500), 0.0)
    assert policy.take_dropped() == []
    assert policy.next_ask(START_WAIT_S) is None
    policy.reject([3], range(N))
    assert policy.take_dropped() == [slot for slot in range(N) if slot != 3]


def test_each_chunk_that_was_handed_over_returns_at_its_own_time():
    duty = swarm("a").duty
    slow, fast, *_ = [slot for slot in range(N) if duty.own(0.0) >> slot & 1]
    for slot, chunk_s in ((slow, 20.0), (fast, 1.0)):
        duty.serve([slot], "a", held=0, under_way=0, now=1.0, chunk_s=chunk_s)
    now = 2.0 + HANDOVER_CHUNK_TIMES
    assert duty.own(now) >> fast & 1
    assert not duty.own(now) >> slow & 1


def test_who_has_no_time_for_a_question_is_asked_again_and_stays_elected():
    policy = swarm("a")
    policy.hear("a", NOTHING, START_WAIT_S)
    read_all_of_its_own(policy, START_WAIT_S)
    claim = policy.next_claim(START_WAIT_S)
    policy.duty.put_off(claim, START_WAIT_S + 1.0)
    assert policy.next_claim(START_WAIT_S + 0.9) is None
    assert policy.next_claim(START_WAIT_S + 1.0) == claim
    assert policy.duty.elected(claim.slots[0]) == "a"
