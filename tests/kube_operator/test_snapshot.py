"""What the operator knows: the newest state, whatever the order; and whom a change concerns."""

import random

import pytest
from hypothesis import given, strategies as st

from modelcache_api.model_cache import ModelCache
from modelcache_operator.handlers.sight import Sight
from modelcache_operator.handlers.snapshot import ModelCacheKey, NodeKey, Snapshot
from modelcache_operator.handlers.watching import live_nodes
from modelcache_operator.kube.client import CACHE_NODES, JOBS, MODEL_CACHES, NODES
from modelcache_operator.planning.job_arguments import JobSettings, JobWish
from modelcache_operator.planning.jobs import job_manifest
from modelcache_operator.planning.observed import parse_node
from support.cluster_objects import (
    OTHER_REVISION,
    REVISION,
    START,
    after,
    cache_node,
    held,
    model_cache,
    node,
    proof,
    stamp,
    wanted,
)

LLAMA = ModelCacheKey("team", "llama")
OTHER = ModelCacheKey("team", "other")


@pytest.fixture
def snapshot():
    found = Snapshot()
    found.put(NODES, node("n1"))
    found.put(CACHE_NODES, cache_node("n1"))
    found.put(MODEL_CACHES, model_cache(status={"revision": REVISION}))
    found.put(MODEL_CACHES, model_cache("other", status={"revision": OTHER_REVISION}))
    return found


def _job(version=5):
    settings = JobSettings("image", "Always", (), "https://a:1", "PEM")
    found = ModelCache.model_validate(model_cache())
    body = job_manifest(found, JobWish("n1", "r", 1), parse_node(node("n1")), settings)
    body["metadata"] |= {
        "uid": "j",
        "creationTimestamp": stamp(START),
        "resourceVersion": str(version),
    }
    return body


@given(st.randoms(use_true_random=False), st.lists(st.booleans(), min_size=1, max_size=8))
def test_events_in_any_order_and_twice_end_in_the_newest_state(order: random.Random, lives):
    events = [
        ("put" if lives_on else "drop", model_cache(version=number, maxNodes=number))
        for number, lives_on in enumerate(lives, start=1)
    ]
    shuffled = events * 2
    order.shuffle(shuffled)
    snapshot = Snapshot()
    for verb, body in shuffled:
        getattr(snapshot, verb)(MODEL_CACHES, body)
    known = snapshot.model_caches.get(("team", "llama"))
    if lives[-1]:
        assert known is not None
        assert known.spec.placement.max_nodes == len(lives)
    else:
        assert known is None


def test_a_heartbeat_concerns_nobody(snapshot):
    beat = cache_node("n1", version=2, heartbeatAt=stamp(after(60)), usedBytes=7)
    assert snapshot.put(CACHE_NODES, beat) == set()


def test_a_models_progress_concerns_those_who_want_it(snapshot):
    body = cache_node("n1", version=2, models=(), heartbeatAt=stamp(after(60)))
    body["status"]["models"] = [held(state="Fetching")]
    assert snapshot.put(CACHE_NODES, body) == {LLAMA}


def test_a_new_proof_concerns_its_model_cache(snapshot):
    body = cache_node("n1", version=2, proofs=[proof("r", uid="uid-of-other")])
    assert snapshot.put(CACHE_NODES, body) == {OTHER}


def test_a_waiting_pod_concerns_what_it_waits_for(snapshot):
    assert snapshot.put(CACHE_NODES, cache_node("n1", version=2, wanted=[wanted()])) == {LLAMA}


@pytest.mark.parametrize(
    "change",
    [
        {"bootId": "boot-2"},
        {"storeId": "store-2"},
        {"diskHealthy": False},
        {"heartbeatAt": stamp(after(3600))},
    ],
)
def test_a_node_that_counts_differently_concerns_everybody(snapshot, change):
    found = snapshot.put(CACHE_NODES, cache_node("n1", version=2, **change))
    assert found == {LLAMA, OTHER, NodeKey("n1")}


def test_a_changed_wish_concerns_its_node(snapshot):
    found = snapshot.put(CACHE_NODES, cache_node("n1", version=2, models=(REVISION,)))
    assert found == {NodeKey("n1")}


def test_a_nodes_own_heartbeat_concerns_nobody(snapshot):
    assert snapshot.put(NODES, node("n1", version=2)) == set()
    assert LLAMA in snapshot.put(NODES, node("n1", version=3, labels={"a": "b"}))


def test_a_job_concerns_its_model_cache_at_its_end_too(snapshot):
    assert snapshot.put(JOBS, _job()) == {LLAMA}
    assert [job.name for job in snapshot.jobs_of(LLAMA)] == [_job()["metadata"]["name"]]
    assert snapshot.drop(JOBS, _job(version=6)) == {LLAMA}
    assert snapshot.jobs_of(LLAMA) == []


def test_a_list_takes_away_what_it_lacks_and_nothing_newer(snapshot):
    snapshot.put(MODEL_CACHES, model_cache("newer", version=50))
    concerned = snapshot.replace(MODEL_CACHES, [model_cache(version=10)], 40)
    assert set(snapshot.model_caches) == {("team", "llama"), ("team", "newer")}
    assert OTHER in concerned


def test_a_list_that_is_older_than_a_deletion_brings_nothing_back(snapshot):
    snapshot.drop(MODEL_CACHES, model_cache(version=50))
    snapshot.replace(MODEL_CACHES, [model_cache(version=10)], 40)
    assert ("team", "llama") not in snapshot.model_caches


def test_an_object_that_makes_no_sense_is_left_out_and_harms_no_other(snapshot, caplog):
    broken = model_cache("broken", version=9)
    del broken["spec"]["source"]["uri"]
    assert snapshot.put(MODEL_CACHES, broken) == set()
    foreign = _job(version=9)
    foreign["metadata"]["annotations"] = {}
    assert snapshot.put(JOBS, foreign) == set()
    assert "broken" in caplog.text


def test_a_silent_node_is_not_live(snapshot):
    sight = Sight(START)
    assert live_nodes(snapshot, sight, START) == {"n1"}
    assert live_nodes(snapshot, sight, after(3600)) == frozenset()


def test_nobody_is_silent_while_the_operator_is_blind_nor_right_after(snapshot):
    sight = Sight(after(60))
    sight.missed()
    assert live_nodes(snapshot, sight, after(3600)) == {"n1"}
    sight.missed()
    sight.saw(after(3610))
    assert live_nodes(snapshot, sight, after(3620)) == {"n1"}
    assert live_nodes(snapshot, sight, after(3610 + 150)) == frozenset()


def test_who_was_silent_before_the_blindness_stays_so(snapshot):
    sight = Sight(after(1000))
    sight.missed()
    sight.saw(after(2000))
    assert live_nodes(snapshot, sight, after(2001)) == frozenset()


def test_a_second_blindness_is_judged_by_itself(snapshot):
    sight = Sight(after(60))
    sight.missed()
    sight.saw(after(100))
    sight.saw(after(500))
    sight.missed()
    assert live_nodes(snapshot, sight, after(600)) == frozenset()
