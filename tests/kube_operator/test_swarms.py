"""Who shares a revision with whom: connected, bounded, and steady when one node comes or goes."""

from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st

from modelcache_api.swarm_bounds import MAX_NEIGHBOURS, MAX_ORIGIN_GROUP, MAX_SWARMS
from modelcache_operator.handlers.reconciling import Bounds
from modelcache_operator.kube.client import CACHE_NODES
from modelcache_operator.planning.observed import parse_cache_node, parse_node
from modelcache_operator.planning.swarms import (
    ZONE_LABEL,
    Peer,
    limit_for_one,
    lists_for,
    peers_of,
    swarms_for,
)
from support.cluster_objects import (
    OTHER_REVISION,
    REVISION,
    after,
    cache_node,
    held,
    model_cache,
    node,
    wanted,
)
from support.simulated_cluster import SimulatedCluster
from support.simulated_operator import Operator

#: Two neighbours on each of 16 rings; of one node that comes, so many lists change.
ON_RINGS = 34


def peers(count: int, *, zones: int = 1) -> tuple[Peer, ...]:
    return tuple(Peer(f"n{n:04}", f"10.0.0.{n}:7440", f"zone-{n % zones}") for n in range(count))


def neighbours(swarm: tuple[Peer, ...]) -> dict[str, set[str]]:
    return {
        peer.name: {one.name for one in lists_for(peer.name, REVISION, swarm)[0]} for peer in swarm
    }


def reached(graph: dict[str, set[str]]) -> set[str]:
    """Nodes that the first one reaches."""
    found = set(list(graph)[:1])
    fresh = found
    while fresh:
        fresh = set().union(*(graph[name] for name in fresh)) - found
        found = found | fresh
    return found


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 150), zones=st.integers(1, 5))
def test_a_swarm_is_one_connected_graph_of_mutual_neighbours_within_bounds(count, zones):
    swarm = peers(count, zones=zones)
    graph = neighbours(swarm)
    assert reached(graph) == set(graph)
    for name, others in graph.items():
        assert name not in others
        assert len(others) <= MAX_NEIGHBOURS
        assert all(name in graph[other] for other in others)
        assert len(others) >= min(count - 1, MAX_NEIGHBOURS // 4), "rings that repeat each other"


@settings(max_examples=15, deadline=None)
@given(count=st.integers(ON_RINGS, 150), data=st.data())
def test_one_node_more_or_less_changes_the_neighbours_of_few(count, data):
    swarm = peers(count + 1, zones=3)
    leaver = data.draw(st.sampled_from(swarm))
    before, after_it = neighbours(swarm), neighbours(tuple(p for p in swarm if p != leaver))
    changed = {name for name, others in after_it.items() if others != before[name]}
    assert changed <= before[leaver.name]
    assert len(changed) <= MAX_NEIGHBOURS


@pytest.mark.parametrize("count", [1, 2, 31, 32, 33, 34, 200])
def test_every_node_is_told_the_same_origin_group(count):
    swarm = peers(count)
    groups = {lists_for(peer.name, REVISION, swarm)[1] for peer in swarm}
    assert len(groups) == 1
    (group,) = groups
    assert len(group) == min(count, MAX_ORIGIN_GROUP)


def test_one_node_less_moves_at_most_one_place_of_the_origin_group():
    swarm = peers(100)
    group = {one.name for one in lists_for("n0000", REVISION, swarm)[1]}
    for leaver in swarm[1:]:
        rest = tuple(peer for peer in swarm if peer != leaver)
        now = {one.name for one in lists_for("n0000", REVISION, rest)[1]}
        assert len(group - now) == (leaver.name in group)


def test_every_revision_has_a_group_of_its_own():
    swarm = peers(100)
    assert lists_for("n0000", REVISION, swarm)[1] != lists_for("n0000", OTHER_REVISION, swarm)[1]


def test_half_of_the_neighbours_are_near_and_zones_are_joined():
    swarm = peers(300, zones=3)
    for peer in swarm:
        listed = lists_for(peer.name, REVISION, swarm)[0]
        near = [one for one in listed if not one.far]
        assert len(near) >= MAX_NEIGHBOURS // 2 - 2
        assert any(one.far for one in listed)
        assert all(one.far == (int(one.name[1:]) % 3 != int(peer.name[1:]) % 3) for one in listed)


def test_in_a_cluster_without_zones_nobody_is_far():
    swarm = tuple(replace(peer, zone="") for peer in peers(50))
    assert not any(one.far for one in lists_for("n0000", REVISION, swarm)[0])


# -- from what is observed


def observed(*names: str):
    nodes = {name: parse_node(node(name, labels={ZONE_LABEL: "a"})) for name in names}
    caches = {name: parse_cache_node(cache_node(name, address=f"{name}:7440")) for name in names}
    return nodes, caches


def test_who_keeps_or_holds_a_revision_and_can_be_reached_shares_it():
    nodes, caches = observed("keeper", "holder", "stranger", "mute", "silent")
    caches["holder"] = parse_cache_node(_holding("holder"))
    caches["mute"] = replace(caches["mute"], address="")
    caches["silent"] = replace(caches["silent"], heartbeat_at=after(-3600))
    found = peers_of(REVISION, {"keeper", "mute", "silent"}, nodes, caches, after(1))
    assert [(peer.name, peer.address, peer.zone) for peer in found] == [
        ("holder", "holder:7440", "a"),
        ("keeper", "keeper:7440", "a"),
    ]


@pytest.mark.parametrize(
    ("address", "is_its"),
    [
        ("10.0.0.7:7440", True),
        ("[fd00::7]:7440", True),
        ("n1:7440", True),
        ("10.244.3.9:7440", True),
        ("10.244.4.9:7440", False),
        ("10.0.0.8:7440", False),
        ("evil.example:7440", False),
        ("", False),
        (":7440", False),
    ],
)
def test_an_address_that_is_not_its_node_s_is_passed_to_nobody(address, is_its):
    body = node("n1")
    body["spec"]["podCIDRs"] = ["10.244.3.0/24"]
    body["status"]["addresses"] += [
        {"type": "InternalIP", "address": "10.0.0.7"},
        {"type": "InternalIP", "address": "fd00::7"},
    ]
    caches = {"n1": parse_cache_node(cache_node("n1", address=address))}
    found = peers_of(REVISION, {"n1"}, {"n1": parse_node(body)}, caches, after(1))
    assert bool(found) == is_its


def _holding(name: str):
    body = cache_node(name, address=f"{name}:7440")
    body["status"]["models"] = [held()]
    return body


def lists_of(cache, swarm, *revisions: str, at: float = 10.0):
    return swarms_for(cache, revisions, lambda _: swarm, after(at))


def test_lists_that_do_not_change_keep_their_epoch_and_others_grow():
    cache = parse_cache_node(cache_node("n0000", address="n0000:7440"))
    first = lists_of(cache, peers(2), REVISION, at=10)
    again = replace(cache, spec=cache.spec.model_copy(update={"swarms": first}))
    assert lists_of(again, peers(2), REVISION, at=20) == first
    changed = lists_of(again, peers(3), REVISION, at=10)
    assert changed[0].epoch > first[0].epoch
    backwards = lists_of(again, peers(3), REVISION, at=-500)
    assert backwards[0].epoch > first[0].epoch


def test_the_lists_of_a_revision_that_is_complete_stay_as_they_are():
    cache = parse_cache_node(_holding("n0000"))
    assert lists_of(cache, peers(2), REVISION) == ()
    listed = lists_of(parse_cache_node(cache_node("n0000")), peers(2), REVISION)
    before = replace(cache, spec=cache.spec.model_copy(update={"swarms": listed}))
    assert lists_of(before, peers(3), REVISION) == listed


def test_who_is_not_among_those_that_can_be_reached_is_told_nothing():
    cache = parse_cache_node(cache_node("elsewhere"))
    assert lists_of(cache, peers(2), REVISION) == ()


def test_what_is_lacking_goes_before_what_is_complete_where_there_is_no_room_for_all():
    revisions = [f"sha256:{number:064}" for number in range(MAX_SWARMS + 10)]
    empty = parse_cache_node(cache_node("n0000"))
    listed = lists_of(empty, peers(2), *revisions)
    assert [one.revision for one in listed] == revisions[:MAX_SWARMS]
    body = cache_node("n0000")
    body["status"]["models"] = [held(revision) for revision in revisions[:20]]
    cache = parse_cache_node(body)
    cache = replace(cache, spec=cache.spec.model_copy(update={"swarms": listed}))
    now = [one.revision for one in lists_of(cache, peers(2), *revisions)]
    assert set(revisions[20:]) <= set(now)
    assert len(now) == MAX_SWARMS


# -- the sources' limit


def test_the_readers_of_all_revisions_together_stay_within_the_limit():
    cache = parse_cache_node(cache_node("n0000"))
    for n_active in range(1, 20):
        for count in (1, 3, 32, 100):
            limit = limit_for_one(10**9, n_active)
            swarm = peers(count)
            (lists,) = swarms_for(
                cache, [REVISION], lambda _, swarm=swarm: swarm, after(1), origin_bytes_per_s=limit
            )
            assert lists.origin_bytes_per_second
            readers = len(lists.origin_group)
            assert lists.origin_bytes_per_second * readers * n_active <= 10**9
            assert lists.origin_bytes_per_second * readers * n_active >= 10**9 // 2 - 10**4


def test_a_limit_that_is_another_now_is_a_change_of_the_lists():
    cache = parse_cache_node(cache_node("n0000"))
    first = lists_of(cache, peers(2), REVISION)
    again = replace(cache, spec=cache.spec.model_copy(update={"swarms": first}))
    (changed,) = swarms_for(
        again, [REVISION], lambda _: peers(2), after(1), origin_bytes_per_s=1000
    )
    assert changed.epoch > first[0].epoch


# -- over a cluster in memory


async def planning(n_nodes: int, *, origin_bytes_per_s: int | None = None, **placement) -> Operator:
    cluster = SimulatedCluster()
    for number in range(n_nodes):
        cluster.add_node(f"n{number}")
    cluster.put_model_cache(model_cache(**placement))
    operator = Operator(cluster, bounds=Bounds(origin_bytes_per_s=origin_bytes_per_s))
    await operator.start()
    return operator


async def test_nodes_that_fetch_a_model_are_told_of_each_other():
    operator = await planning(3)
    await operator.run()
    swarms = {
        body["metadata"]["name"]: body["spec"]["swarms"]
        for body in operator.cluster.objects(CACHE_NODES)
        if body["spec"].get("swarms")
    }
    assert swarms, "somebody lacks it still"
    for name, (lists,) in swarms.items():
        others = sorted({"n0", "n1", "n2"} - {name})
        assert lists["revision"] == REVISION
        assert [one["name"] for one in lists["neighbours"]] == others
        assert [one["name"] for one in lists["originGroup"]] == ["n0", "n1", "n2"]
        assert lists["originGroup"][0]["address"] == "n0:7440"


async def test_nodes_are_told_their_share_of_the_sources_limit():
    operator = await planning(3, origin_bytes_per_s=3000)
    await operator.run()
    shares = {
        lists["originBytesPerSecond"]
        for body in operator.cluster.objects(CACHE_NODES)
        for lists in body["spec"].get("swarms", ())
    }
    assert shares == {1000}


async def test_a_node_where_a_pod_waits_is_told_who_has_the_model():
    operator = await planning(3, maxNodes=1)
    await operator.run()
    (holder,) = (name for name, agent in operator.cluster.agents.items() if agent.models)
    cold = next(name for name in operator.cluster.agents if name != holder)
    operator.cluster.agents[cold].wanted = [wanted()]
    operator.cluster.report_all()
    await operator.settle()
    spec = next(
        body["spec"]
        for body in operator.cluster.objects(CACHE_NODES)
        if body["metadata"]["name"] == cold
    )
    assert [model["revision"] for model in spec["models"]] == [REVISION]
    assert [one["name"] for one in spec["swarms"][0]["neighbours"]] == [holder]


async def test_nodes_are_told_of_each_other_while_another_model_leaves_their_lists():
    operator = await planning(3)
    await operator.run()
    cluster = operator.cluster
    cluster.revisions["other"] = OTHER_REVISION
    cluster.put_model_cache(model_cache("other", source={"uri": "s3://models/other"}))
    await operator.run(steps=1, step_s=1.0)
    cluster.remove_model_cache("team", "llama")
    await operator.settle()
    cluster.now_s += 0.5
    cluster.step()  # the other model's revision is known from now on
    for _ in range(5):
        await operator.settle()
        cluster.now_s += 1.0
    told = [
        {lists["revision"] for lists in body["spec"].get("swarms", ())}
        for body in cluster.objects(CACHE_NODES)
    ]
    assert all(OTHER_REVISION in revisions for revisions in told)
