"""Which nodes should hold a model, and which of them can be believed."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, strategies as st

from modelcache_api.model_cache import Placement
from modelcache_operator.planning.observed import parse_cache_node, parse_node
from modelcache_operator.planning.placement import (
    GONE_AFTER,
    STALE_AFTER,
    is_eligible,
    is_live,
    is_member,
    placed_nodes,
)
from support.cluster_objects import START, cache_node, node

names = st.sets(st.text("abcdefghij0123456789-", min_size=1, max_size=12), max_size=12)


def _placed(found, max_nodes=None, key="uid-1"):
    nodes = {name: parse_node(node(name)) for name in found}
    caches = {name: parse_cache_node(cache_node(name)) for name in found}
    return placed_nodes(key, Placement(max_nodes=max_nodes), nodes, caches, START)


def _with_taint(key, effect="NoSchedule", value=""):
    return parse_node(node("n1", taints=[{"key": key, "effect": effect, "value": value}]))


def _tolerating(**toleration):
    return Placement.model_validate({"tolerations": [toleration]})


@given(names, st.integers(1, 14))
def test_at_most_max_nodes_are_chosen_and_all_where_there_is_no_limit(found, max_nodes):
    assert set(_placed(found)) == found
    assert len(_placed(found, max_nodes)) == min(max_nodes, len(found))


@given(names, st.integers(1, 5), st.data())
def test_a_node_that_leaves_moves_at_most_its_own_place(found, max_nodes, data):
    before = set(_placed(found, max_nodes))
    if not found:
        return
    gone = data.draw(st.sampled_from(sorted(found)))
    after = set(_placed(found - {gone}, max_nodes))
    assert before - after <= {gone}
    assert len(after - before) <= 1


@given(names, st.integers(1, 5))
def test_a_node_that_joins_takes_at_most_one_place(found, max_nodes):
    before = set(_placed(found, max_nodes))
    after = set(_placed(found | {"joined"}, max_nodes))
    assert after - before <= {"joined"}
    assert len(before - after) <= 1


def test_different_models_prefer_different_nodes():
    found = {f"n{number}" for number in range(20)}
    firsts = {_placed(found, 1, key=f"uid-{number}") for number in range(40)}
    assert len(firsts) > 5


def test_a_node_needs_every_label_of_the_selector():
    placement = Placement(node_selector={"pool": "gpu", "zone": "a"})
    assert is_eligible(parse_node(node("n1", labels={"pool": "gpu", "zone": "a"})), placement)
    assert not is_eligible(parse_node(node("n1", labels={"pool": "gpu"})), placement)
    assert not is_eligible(parse_node(node("n1", labels={"pool": "gpu", "zone": "b"})), placement)


@pytest.mark.parametrize(
    "key",
    ["nvidia.com/gpu", "google.com/tpu", "node.kubernetes.io/unschedulable",
     "node.kubernetes.io/memory-pressure"],
)  # fmt: skip
def test_taints_of_accelerators_and_of_a_nodes_state_are_tolerated(key):
    assert is_eligible(_with_taint(key), Placement())


def test_any_other_taint_keeps_the_model_off():
    assert not is_eligible(_with_taint("node-role.kubernetes.io/control-plane"), Placement())
    assert not is_eligible(_with_taint("team", effect="NoExecute"), Placement())
    assert is_eligible(_with_taint("team", effect="PreferNoSchedule"), Placement())


@pytest.mark.parametrize(
    ("toleration", "is_tolerated"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "team", "operator": "Exists"}, True),
        ({"key": "other", "operator": "Exists"}, False),
        ({"key": "team", "value": "a"}, True),
        ({"key": "team", "value": "b"}, False),
        ({"key": "team", "value": "a", "effect": "NoSchedule"}, True),
        ({"key": "team", "value": "a", "effect": "NoExecute"}, False),
    ],
)
def test_a_toleration_means_what_it_means_in_a_pod(toleration, is_tolerated):
    assert is_eligible(_with_taint("team", value="a"), _tolerating(**toleration)) is is_tolerated


def test_a_node_whose_agent_never_reported_is_no_cache_node():
    found = parse_node(node("n1"))
    silent = parse_cache_node(cache_node("n1", heartbeatAt=None))
    assert not is_member(found, None, START)
    assert not is_member(found, silent, START)


def test_a_reboot_moves_no_model_and_a_lasting_absence_does():
    cache = parse_cache_node(cache_node("n1"))
    down = parse_node(node("n1", is_ready=False))
    just_before, after = START + GONE_AFTER - timedelta(seconds=1), START + GONE_AFTER
    assert is_member(down, cache, just_before)
    assert not is_member(down, cache, after)
    assert not is_member(parse_node(node("n1")), cache, after)


def test_a_status_of_another_boot_of_a_lost_node_or_of_long_ago_is_not_believed():
    found, cache = parse_node(node("n1")), parse_cache_node(cache_node("n1"))
    assert is_live(found, cache, START)
    assert not is_live(parse_node(node("n1", boot_id="boot-2")), cache, START)
    assert not is_live(parse_node(node("n1", is_ready=False)), cache, START)
    assert not is_live(found, cache, START + STALE_AFTER)
    assert not is_live(None, cache, START)
    assert not is_live(found, None, START)
    assert not is_live(found, replace(cache, heartbeat_at=None), START)
