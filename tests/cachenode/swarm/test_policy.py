"""One node's decisions, step by step: what it asks of whom, and what it makes of the answers."""

import random
from array import array

import pytest

from modelcache_api.chunk_slots import ChunkSlots
from modelcache_api.have_map import HaveMap
from modelcache_node.swarm.asks import Failure
from modelcache_node.swarm.neighbourhood import GRACE_S, START_WAIT_S
from modelcache_node.swarm.neighbours import AVOID_S, MAX_STRIKES
from modelcache_node.swarm.origin_duty import MIN_HEDGE_S, ClaimState
from modelcache_node.swarm.policy import LONE_WORD_S, Swarm

N = 40
SLOTS = ChunkSlots((("c" * 64, N),))


def swarm(*peers: str, group=(), can_fetch=False) -> Swarm:
    policy = Swarm("me", SLOTS, instance=1, uniform=random.Random(7).random, now=0.0)
    policy.set_members(dict.fromkeys(peers, 1.0), group)
    policy.set_can_fetch(0.0, can_fetch=can_fetch)
    policy.want(range(N))
    return policy


def told(slots, *, crc=None, vouched=True, version=None, since=0, can_fetch=False, gone=()):
    present = array("I", slots)
    return HaveMap(
        instance=5,
        since=since,
        version=len(present) if version is None else version,
        n_slots=N,
        present=present,
        crc32c=array("I", [crc or 100 + slot for slot in present]),
        vouched=(1 << len(present)) - 1 if vouched else 0,
        gone=array("I", gone),
        can_fetch=can_fetch,
    )


def asks_of(policy: Swarm, now: float):
    found = []
    while (ask := policy.next_ask(now)) is not None:
        found.append(ask)
    return found


def test_a_chunk_is_asked_of_who_has_it_and_counts_when_its_checksum_is_the_announced_one():
    policy = swarm("a")
    policy.hear("a", told([3]), 0.0)
    (ask,) = asks_of(policy, 0.0)
    assert (ask.peer, ask.slot) == ("a", 3)
    assert policy.came(ask, 103, 0, 0.1).is_accepted
    assert policy.holdings.has(3)


def test_requests_are_spread_over_peers_and_bounded():
    policy = swarm("a", "b", "c")
    for name in ("a", "b", "c"):
        policy.hear(name, told(range(N)), 0.0)
    asks = asks_of(policy, 0.0)
    assert len(asks) == policy.limits.peer_requests
    assert sorted([ask.peer for ask in asks].count(name) for name in "abc") == [2, 3, 3]
    assert len({ask.slot for ask in asks}) == len(asks)


def test_the_rarest_chunk_of_the_chosen_peer_goes_first():
    policy = swarm("a", "b", "c")
    policy.hear("a", told(range(20)), 0.0)
    policy.hear("b", told(range(19)), 0.0)
    policy.hear("c", told(range(19)), 0.0)
    assert next(ask for ask in asks_of(policy, 0.0) if ask.peer == "a").slot == 19


def test_what_a_reader_waits_for_goes_first_then_early_files():
    policy = swarm("a")
    policy.prefer([30, 31])
    policy.hurry(20)
    policy.hurry(21)
    policy.hear("a", told(range(N)), 0.0)
    assert [ask.slot for ask in asks_of(policy, 0.0)][:2] == [20, 21]
    assert {30, 31} <= {ask.slot for ask in asks_of(policy, 0.0)} | {
        slot for slot in range(N) if policy._under_way.has(slot)
    }


def test_what_a_reader_waits_for_is_asked_beside_all_others():
    policy = swarm("a", group=["me"], can_fetch=True)
    policy.hear("a", told(range(20)), 0.0)
    asks_of(policy, START_WAIT_S)
    wanted = next(slot for slot in range(20) if not policy._under_way.has(slot))
    assert policy.ask_urgently(wanted, START_WAIT_S).peer == "a"
    assert policy.ask_urgently(wanted, START_WAIT_S) is None
    nobodys = next(slot for slot in range(20, N) if not policy._under_way.has(slot))
    assert policy.ask_urgently(nobodys, START_WAIT_S).peer is None


def test_a_busy_peer_is_left_alone_for_a_moment_and_another_asked():
    policy = swarm("a", "b")
    policy.hear("a", told([3]), 0.0)
    (ask,) = asks_of(policy, 0.0)
    policy.hear("b", told([3]), 0.0)
    policy.chunk_s = 1.0
    policy.failed(ask, Failure.BUSY, 0.1, holders=("b",))
    (again,) = asks_of(policy, 0.1)
    assert again.peer == "b"
    assert "b" in [name for name, _, _ in policy.due_polls(0.1)]


def test_wrong_bytes_are_not_taken_and_three_strikes_put_a_peer_aside_for_a_time():
    policy = swarm("a", "b")
    policy.hear("a", told(range(N)), 0.0)
    for _ in range(MAX_STRIKES):
        ask = policy.next_ask(0.0)
        assert not policy.came(ask, 666, 0, 0.1).is_accepted
    assert asks_of(policy, 0.2) == []
    policy.hear("b", told(range(N)), 0.3)
    assert {ask.peer for ask in asks_of(policy, 0.3)} == {"b"}
    policy.hear("a", told([], since=N, version=N), AVOID_S + 1.0)
    for asks in list(policy._under_way._by_slot.values()):
        policy.failed(asks[0], Failure.UNAVAILABLE, AVOID_S + 1.0)
    assert {ask.peer for ask in asks_of(policy, AVOID_S + 1.1)} == {"a"}


def test_a_map_that_lies_costs_a_strike_and_the_slot():
    policy = swarm("a")
    policy.hear("a", told([3]), 0.0)
    policy.failed(policy.next_ask(0.0), Failure.LACKS, 0.1)
    assert policy.neighbours.get("a").strikes == 1
    assert policy.next_ask(0.2) is None


def test_a_word_that_one_neighbour_passes_on_is_not_enough_until_a_second_agrees():
    policy = swarm("a", "b")
    policy.hear("a", told([3], vouched=False), 0.0)
    assert policy.next_ask(0.0) is None
    policy.hear("b", told([3], vouched=False), 0.0)
    assert policy.next_ask(0.0).slot == 3


def test_a_lone_word_is_taken_when_nothing_else_happens():
    policy = swarm("a")
    policy.hear("a", told([3], vouched=False), 0.0)
    assert policy.next_ask(LONE_WORD_S + 0.1).slot == 3


def test_the_word_of_who_read_the_origin_overrules_what_others_pass_on():
    policy = swarm("a", "b", "c")
    policy.hear("a", told([3], crc=666, vouched=False), 0.0)
    policy.hear("b", told([3], crc=666, vouched=False), 0.0)
    ask = policy.next_ask(0.0)
    assert policy.came(ask, 666, 0, 0.1).is_accepted
    policy.hear("c", told([3]), 0.2)
    assert policy.take_dropped() == [3]
    assert not policy.holdings.has(3)
    assert policy.neighbours.get("a").strikes == policy.neighbours.get("b").strikes == 1
    assert policy.next_ask(0.3).peer == "c"


def test_most_neighbours_decide_among_words_that_are_passed_on():
    policy = swarm("a", "b", "c")
    policy.hear("a", told([3], crc=666, vouched=False), 0.0)
    policy.hear("b", told([3], vouched=False), 0.0)
    assert policy.next_ask(0.0) is None
    policy.hear("c", told([3], vouched=False), 0.0)
    ask = policy.next_ask(0.0)
    assert ask.peer in ("b", "c")
    assert policy.came(ask, 103, 0, 0.1).is_accepted


def test_own_bytes_from_the_origin_overrule_everyone():
    policy = swarm("a", group=["me"], can_fetch=True)
    policy.hear("a", told([3], crc=666, vouched=False), 0.0)
    ask = next(ask for ask in asks_of(policy, START_WAIT_S) if ask.slot == 3)
    assert ask.peer is None
    assert policy.came(ask, 103, 0, 1.1).is_accepted
    assert policy.neighbours.get("a").strikes == 1


def test_the_origin_is_left_alone_until_every_neighbour_was_heard():
    policy = swarm("a", "b", group=["me"], can_fetch=True)
    policy.unheard("a", 0.0)
    assert policy.next_ask(0.1) is None
    policy.unheard("b", 0.1)
    assert policy.next_ask(0.1).peer is None


def test_who_joins_others_that_read_the_origin_lets_them_hear_of_it_first():
    policy = swarm("a", group=["a", "me"], can_fetch=True)
    policy.hear("a", told([], can_fetch=True), 0.0)
    assert policy.next_ask(0.0) is None
    policy.neighbours.told("a", can_fetch=True)
    assert policy.next_ask(0.0).peer is None


def test_a_neighbour_that_has_not_begun_yet_keeps_its_share_for_a_moment():
    policy = swarm("a", group=["a", "me"], can_fetch=True)
    policy.unheard("a", 0.0, is_there=True)
    assert policy.duty.own(0.0).bit_count() < N
    policy.unheard("a", GRACE_S, is_there=True)
    assert policy.duty.own(GRACE_S).bit_count() == N


def test_without_a_grant_the_origin_is_not_asked():
    policy = swarm(group=["me"])
    assert policy.next_ask(START_WAIT_S) is None


def test_a_node_reads_only_what_it_was_elected_for_and_nobody_has():
    policy = swarm("a", group=["a", "me"], can_fetch=True)
    own = policy.duty.own(0.0)
    assert 0 < own.bit_count() < N
    policy.hear("a", told([], can_fetch=True), 0.0)
    asked = {ask.slot for ask in asks_of(policy, START_WAIT_S)}
    assert asked
    assert all(own >> slot & 1 for slot in asked)


def test_the_elected_node_gone_its_chunks_go_to_the_next_at_once():
    policy = swarm("a", group=["a", "me"], can_fetch=True)
    policy.unheard("a", 0.0)
    assert policy.duty.own(0.0) == (1 << N) - 1


def test_who_has_nothing_left_to_read_asks_the_elected_node_and_reads_what_it_hands_over():
    policy = swarm("a", group=["a", "me"], can_fetch=True)
    policy.hear("a", told([], can_fetch=True), 0.0)
    policy.neighbours.told("a", can_fetch=True)
    while asks := asks_of(policy, 0.0):
        for ask in asks:
            policy.came(ask, 100 + ask.slot, 0, 0.1)
    claim = policy.next_claim(0.2)
    assert claim.member == "a"
    states = [ClaimState.YOURS] + [ClaimState.UNDER_WAY] * (len(claim.slots) - 1)
    policy.claim_answered(claim, states, 0.3)
    assert [ask.slot for ask in asks_of(policy, 0.3)] == [claim.slots[0]]


def test_a_chunk_too_long_under_way_at_the_elected_node_is_read_here_too():
    policy = swarm("a", group=["a", "me"], can_fetch=True)
    policy.hear("a", told([], can_fetch=True), 0.0)
    policy.neighbours.told("a", can_fetch=True)
    while asks := asks_of(policy, 0.0):
        for ask in asks:
            policy.came(ask, 100 + ask.slot, 0, 1.0)
    claim = policy.next_claim(1.0)
    policy.claim_answered(claim, [ClaimState.UNDER_WAY] * len(claim.slots), 1.1)
    assert policy.next_claim(1.2) is None
    late = 1.2 + MIN_HEDGE_S
    again = policy.next_claim(late)
    policy.claim_answered(again, [ClaimState.UNDER_WAY] * len(again.slots), late)
    assert policy.next_ask(late).slot in claim.slots


def test_an_elected_node_hands_over_what_it_has_not_begun_and_does_not_read_it_meanwhile():
    policy = swarm(group=["a", "me"], can_fetch=True)
    (first, *_) = asks = asks_of(policy, START_WAIT_S)
    began = {ask.slot for ask in asks}
    free = next(slot for slot in range(N) if policy.duty.own(1.0) >> slot & 1 and slot not in began)
    states = policy.serve_claim([first.slot, free], "a", 1.0)
    assert states == [ClaimState.UNDER_WAY, ClaimState.YOURS]
    assert not policy.duty.own(1.0) >> free & 1
    assert policy.serve_claim([free], "b", 1.0) == [ClaimState.SEEN_TO]


def test_what_was_handed_to_a_node_that_went_away_returns_to_the_elected_one():
    policy = swarm("a", group=["a", "me"], can_fetch=True)
    policy.hear("a", told([], can_fetch=True), 0.0)
    free = next(slot for slot in range(N) if policy.duty.own(0.0) >> slot & 1)
    assert policy.serve_claim([free], "a", 0.0) == [ClaimState.YOURS]
    policy.unheard("a", 0.1)
    assert policy.duty.own(0.2) >> free & 1


@pytest.mark.parametrize("is_wrong_first", [True, False])
def test_at_the_end_a_slow_chunk_is_asked_for_twice_and_the_first_answer_counts(is_wrong_first):
    policy = swarm("a", "b")
    policy.hear("a", told([3]), 0.0)
    for slot in set(range(N)) - {3}:
        policy.hold(slot, 100 + slot, 0, vouched=True)
    slow = policy.next_ask(0.0)
    policy.hear("b", told([3]), 0.0)
    second = policy.next_ask(1.0)
    assert (slow.peer, second.peer, second.slot) == ("a", "b", 3)
    if is_wrong_first:
        assert not policy.came(slow, 666, 0, 1.1).is_accepted
    outcome = policy.came(second, 103, 0, 1.2)
    assert outcome.is_accepted
    assert outcome.superseded == (() if is_wrong_first else (slow,))


def test_what_has_come_and_waits_to_be_accepted_is_asked_of_nobody_else():
    """Else each second attempt, ended for the first one's sake, would make room for another."""
    policy = swarm("a", "b")
    policy.hear("a", told([3]), 0.0)
    for slot in set(range(N)) - {3}:
        policy.hold(slot, 100 + slot, 0, vouched=True)
    first = policy.next_ask(0.0)
    policy.hear("b", told([3]), 0.0)
    policy.landed(first)
    assert policy.next_ask(1.0) is None
    policy.abandoned(first, 1.0)
    assert policy.next_ask(1.0) is not None


def test_a_neighbour_that_leaves_is_forgotten_with_its_chunks():
    policy = swarm("a", "b")
    policy.hear("a", told([3]), 0.0)
    policy.set_members({"b": 1.0}, ())
    assert policy.next_ask(0.0) is None
    policy.hear("a", told([3]), 0.1)
    assert policy.next_ask(0.1) is None


def test_a_dropped_chunk_is_not_asked_for_again_until_somebody_has_it():
    policy = swarm("a")
    policy.hear("a", told([3, 4]), 0.0)
    policy.hear("a", told([], since=2, version=3, gone=[3]), 0.1)
    assert [ask.slot for ask in asks_of(policy, 0.1)] == [4]


def test_a_map_that_builds_on_one_we_do_not_have_is_ignored():
    policy = swarm("a")
    policy.hear("a", told([3], since=7, version=8), 0.0)
    assert policy.next_ask(0.0) is None


def test_a_blob_that_is_wrong_as_a_whole_is_fetched_again_by_words_said_anew():
    policy = swarm("a")
    policy.hear("a", told([3]), 0.0)
    policy.came(policy.next_ask(0.0), 103, 0, 0.1)
    policy.reject([3])
    assert policy.due_polls(0.3) == [("a", 0, 0)]
    assert policy.next_ask(0.2) is None
    policy.hear("a", told([3], crc=203), 0.3)
    assert policy.came(policy.next_ask(0.3), 203, 0, 0.4).is_accepted


def test_with_a_grant_what_was_wrong_is_read_here_and_who_offered_it_is_blamed():
    policy = swarm("a", "b", group=["a", "b"], can_fetch=True)
    policy.hear("a", told([3, 4], crc=666), 0.0)
    policy.hear("b", told([], can_fetch=True), 0.0)
    for ask in asks_of(policy, 0.0):
        policy.came(ask, 666, 0, 0.1)
    policy.reject([3])
    (ask,) = asks_of(policy, START_WAIT_S)
    assert (ask.slot, ask.peer) == (3, None)
    assert policy.came(ask, 103, 0, 0.3).is_accepted
    assert policy.neighbours.get("a").strikes == 1
    assert policy.neighbours.get("b").strikes == 0


def test_a_sealed_blob_is_vouched_for():
    policy = swarm()
    policy.hold(3, 103, 0, vouched=False)
    policy.seal([3])
    assert policy.map_for(0, 0).vouched == 1


def test_a_neighbour_is_told_only_what_is_new_to_it():
    policy = swarm()
    policy.hold(3, 103, 0, vouched=True)
    first = policy.map_for(0, 0)
    assert list(first.present) == [3]
    policy.hold(4, 104, 0, vouched=False)
    second = policy.map_for(first.instance, first.version)
    assert (list(second.present), second.vouched) == ([4], 0)
    policy.holdings.drop(3)
    third = policy.map_for(second.instance, second.version)
    assert (list(third.present), list(third.gone)) == ([], [3])
    assert list(policy.map_for(99, 17).present) == [4]


def test_a_log_of_changes_that_grew_too_long_begins_anew():
    policy = swarm()
    policy.hold(1, 101, 0, vouched=True)
    before = policy.map_for(0, 0)
    for _ in range(2000):
        policy.holdings.add(2, 5, vouched=False)
        policy.holdings.drop(2)
    after = policy.map_for(before.instance, before.version)
    assert after.since == 0
    assert list(after.present) == [1]
    assert policy.holdings.version <= 2 * N + 1024


def test_what_came_by_one_of_two_attempts_is_not_asked_for_a_third_time():
    policy = swarm("a", "b")
    for name in ("a", "b"):
        policy.hear(name, told([3]), 0.0)
    for slot in range(N):
        if slot != 3:
            policy.hold(slot, 100 + slot, 0, vouched=True)
    policy.next_ask(0.0)
    assert policy.came(policy.next_ask(1.0), 103, 0, 1.1).is_accepted
    assert policy.next_ask(5.0) is None
