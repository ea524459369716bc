"""The operator over a cluster in memory: it converges, whatever the order of what it hears."""

import json

import pytest
from hypothesis import given, settings, strategies as st

from modelcache_api.names import ANNOTATION_NODE, REFRESH_ANNOTATION
from modelcache_operator.kube.client import CACHE_NODES, JOBS
from support.cluster_objects import OTHER_REVISION, REVISION, SIZE_BYTES, held, model_cache, wanted
from support.simulated_cluster import SimulatedCluster
from support.simulated_operator import Operator


async def _operator(n_nodes: int = 3, *, seed: int = 0, lag: int = 0, **fields) -> Operator:
    cluster = SimulatedCluster(seed=seed)
    for number in range(n_nodes):
        cluster.add_node(f"n{number}")
    cluster.put_model_cache(model_cache(**fields))
    operator = Operator(cluster, lag=lag)
    await operator.start()
    await operator.settle()
    cluster.report_all()
    return operator


async def test_a_model_reaches_every_node_by_one_job_each():
    operator = await _operator(3)
    await operator.run()
    cluster = operator.cluster
    assert cluster.status()["nodes"] == {"desired": 3, "ready": 3, "fetching": 0, "failed": 0}
    assert cluster.condition("Ready")["status"] == "True"
    assert cluster.condition("Degraded")["status"] == "False"
    assert cluster.condition("Progressing")["status"] == "False"
    assert cluster.calls["create_job"] == 3
    assert cluster.status()["bytes"]["present"] == 3 * SIZE_BYTES
    assert cluster.status()["files"] == 3
    specs = [body["spec"] for body in cluster.objects(CACHE_NODES)]
    wished = [spec["models"] for spec in specs]
    assert wished == [[{"revision": REVISION, "pinned": False}]] * 3


async def test_only_one_job_lists_the_source_until_it_is_resolved():
    operator = await _operator(5)
    await operator.settle()
    assert len(operator.cluster.active_jobs()) == 1
    assert operator.cluster.condition("Resolved")["reason"] == "Resolving"
    assert operator.cluster.condition("Progressing")["status"] == "True"


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), n_nodes=st.integers(1, 6), lag=st.integers(0, 12))
async def test_it_converges_with_bounded_calls_whatever_it_hears_when(seed, n_nodes, lag):
    operator = await _operator(n_nodes, seed=seed, lag=lag)
    await operator.run(steps=20)
    cluster = operator.cluster
    assert cluster.status()["nodes"]["ready"] == n_nodes
    assert cluster.condition("Ready")["status"] == "True"
    assert len(cluster.objects(JOBS)) == n_nodes, "no Job was made twice"
    assert cluster.calls["create_job"] <= 2 * n_nodes
    assert cluster.calls["write_status"] <= 10 + 6 * n_nodes
    assert cluster.calls["write_spec"] <= 4 * n_nodes
    assert cluster.calls["create_cache_node"] <= 2 * n_nodes


async def test_a_converged_cluster_costs_no_calls():
    operator = await _operator(3)
    await operator.run(steps=100)
    before = operator.cluster.calls.copy()
    await operator.run(steps=50)
    assert operator.cluster.calls == before


async def test_an_operator_that_starts_again_writes_nothing_new():
    operator = await _operator(3)
    await operator.run()
    before = operator.cluster.calls.copy()
    successor = Operator(operator.cluster)
    await successor.start()
    await successor.settle()
    writes = operator.cluster.calls - before
    assert set(writes) == {"list"}


async def test_a_node_that_joins_is_warmed():
    operator = await _operator(2)
    await operator.run()
    operator.cluster.add_node("late")
    await operator.run()
    assert REVISION in operator.cluster.agents["late"].models
    assert operator.cluster.status()["nodes"]["ready"] == 3


async def test_a_node_that_goes_is_not_counted():
    operator = await _operator(3)
    await operator.run()
    operator.cluster.remove_node("n0")
    await operator.run(steps=2)
    assert operator.cluster.status()["nodes"] == {
        "desired": 2,
        "ready": 2,
        "fetching": 0,
        "failed": 0,
    }


async def test_a_silent_agent_is_not_ready_and_its_node_is_not_replaced():
    operator = await _operator(3, maxNodes=2)
    await operator.run()
    holders = {name for name, agent in operator.cluster.agents.items() if agent.models}
    silent = min(holders)
    operator.cluster.agents[silent].is_up = False
    for _ in range(5):
        operator.cluster.now_s += 60
        operator.cluster.report_all()
        await operator.resync()
    assert operator.cluster.status()["nodes"]["ready"] == 1
    assert operator.cluster.condition("Ready")["reason"] == "AgentUnavailable"
    assert operator.cluster.condition("Degraded")["status"] == "True"
    assert {name for name, agent in operator.cluster.agents.items() if agent.models} == holders


async def test_an_outage_of_the_api_server_makes_no_node_silent_and_drops_no_wish():
    operator = await _operator(3)
    await operator.run(steps=80)
    before = operator.cluster.calls.copy()
    operator.sight.saw(operator.cluster.now())
    operator.sight.missed()
    for _ in range(3):  # nobody can be heard, for an hour
        operator.cluster.now_s += 1200
        await operator.resync()
    operator.sight.saw(operator.cluster.now())
    await operator.run()
    assert set(operator.cluster.calls - before) == {"list"}
    assert operator.cluster.condition("Ready")["status"] == "True"


async def test_a_silent_nodes_wish_is_left_as_it_is():
    operator = await _operator(3)
    await operator.run(steps=80)
    operator.cluster.agents["n0"].is_up = False
    await operator.run(steps=40, step_s=60)
    await operator.resync()
    assert operator.cluster.status()["nodes"]["desired"] == 2
    wishes = [body["spec"]["models"] for body in operator.cluster.objects(CACHE_NODES)]
    assert wishes == [[{"revision": REVISION, "pinned": False}]] * 3


async def test_a_wiped_disk_is_filled_again_and_never_counted_as_ready():
    operator = await _operator(3)
    await operator.run(steps=80)
    agent = operator.cluster.agents["n0"]
    agent.models, agent.proofs, agent.store = {}, [], 2
    operator.cluster.report_all()
    await operator.settle()
    assert operator.cluster.status()["nodes"]["ready"] == 2
    await operator.run()
    assert operator.cluster.status()["nodes"]["ready"] == 3


async def test_when_no_node_holds_a_proof_any_more_the_source_is_resolved_anew():
    operator = await _operator(2)
    await operator.run(steps=80)
    for agent in operator.cluster.agents.values():
        agent.models, agent.proofs = {}, []
    await operator.run(steps=20)
    assert operator.cluster.condition("Ready")["status"] == "True"


async def test_on_demand_fetches_nothing_until_a_pod_asks_and_then_there_alone():
    operator = await _operator(3, prefetch="OnDemand")
    await operator.run(steps=3)
    assert operator.cluster.objects(JOBS) == []
    assert operator.cluster.condition("Resolved")["reason"] == "NotRequested"
    assert operator.cluster.condition("Ready")["status"] == "False"
    operator.cluster.agents["n1"].wanted = [wanted()]
    await operator.run()
    holders = {name for name, agent in operator.cluster.agents.items() if agent.models}
    assert holders == {"n1"}
    assert operator.cluster.status()["nodes"]["desired"] == 1
    assert operator.cluster.condition("Ready")["status"] == "True"


async def test_a_pod_outside_the_placement_gets_its_model_too():
    operator = await _operator(3, nodeSelector={"pool": "gpu"})
    operator.cluster.add_node("gpu", labels={"pool": "gpu"})
    await operator.run()
    assert operator.cluster.status()["nodes"]["desired"] == 1
    operator.cluster.agents["n2"].wanted = [wanted()]
    await operator.run()
    holders = {name for name, agent in operator.cluster.agents.items() if agent.models}
    assert holders == {"gpu", "n2"}
    assert operator.cluster.status()["nodes"] == {
        "desired": 1,
        "ready": 1,
        "fetching": 0,
        "failed": 0,
    }


async def test_a_pod_waits_for_no_other_node_to_list_first():
    operator = await _operator(8)
    operator.cluster.agents["n7"].wanted = [wanted()]
    operator.cluster.report_all()
    await operator.settle()
    (job,) = operator.cluster.active_jobs()
    assert job["metadata"]["annotations"][ANNOTATION_NODE] == "n7"


async def test_a_pod_on_a_wiped_node_does_not_sit_out_the_pause_after_a_job_that_succeeded():
    operator = await _operator(1, prefetch="OnDemand")
    agent = operator.cluster.agents["n0"]
    agent.wanted = [wanted()]
    await operator.run()
    agent.models, agent.proofs, agent.store = {}, [], 2
    agent.wanted = [wanted("pod-2")]
    await operator.run(steps=8)
    assert REVISION in agent.models


async def test_a_bad_source_makes_a_handful_of_jobs_in_a_day():
    operator = await _operator(3)
    said = json.dumps({"reason": "SourceNotFound", "message": "no bucket named models"})
    operator.cluster.failure = {"said": said}
    await operator.run(steps=24 * 60, step_s=60)
    found = operator.cluster.condition("Resolved")
    assert (found["status"], found["reason"]) == ("False", "SourceNotFound")
    assert "no bucket named models" in found["message"]
    assert operator.cluster.condition("Degraded")["status"] == "True"
    assert operator.cluster.calls["create_job"] <= 30
    assert operator.cluster.calls["write_status"] <= 3 * operator.cluster.calls["create_job"]
    warnings = [event for event in operator.cluster.events if event["type"] == "Warning"]
    assert len(warnings) == 1


async def test_a_mended_source_is_listed_at_once():
    operator = await _operator(2)
    operator.cluster.failure = {"said": json.dumps({"reason": "AccessDenied", "message": "403"})}
    await operator.run()
    assert operator.cluster.condition("Resolved")["reason"] == "AccessDenied"
    operator.cluster.failure = None
    operator.cluster.put_model_cache(model_cache(annotations={REFRESH_ANNOTATION: "now"}))
    await operator.run()
    assert operator.cluster.condition("Ready")["status"] == "True"
    assert operator.cluster.condition("Ready")["observedGeneration"] == 2


async def test_a_source_that_changed_is_followed_and_the_old_revision_kept_meanwhile():
    operator = await _operator(2)
    await operator.run()
    operator.cluster.revision = OTHER_REVISION
    operator.cluster.put_model_cache(model_cache(annotations={REFRESH_ANNOTATION: "now"}))
    await operator.run(steps=2)
    revisions = {
        model["revision"]
        for body in operator.cluster.objects(CACHE_NODES)
        for model in body["spec"]["models"]
    }
    assert REVISION in revisions
    await operator.run()
    status = operator.cluster.status()
    assert status["revision"] == OTHER_REVISION
    assert [old["revision"] for old in status["previousRevisions"]] == [REVISION]
    assert operator.cluster.condition("Ready")["status"] == "True"


async def test_a_refresh_of_an_unchanged_source_fetches_nothing_again():
    operator = await _operator(3)
    await operator.run(steps=80)
    operator.cluster.put_model_cache(model_cache(annotations={REFRESH_ANNOTATION: "now"}))
    before = operator.cluster.calls["create_job"]
    await operator.run()
    assert operator.cluster.calls["create_job"] == before + 1
    assert operator.cluster.condition("Ready")["status"] == "True"
    assert (
        "previousRevisions" not in operator.cluster.status()
        or not (operator.cluster.status()["previousRevisions"])
    )


async def test_a_deleted_model_cache_keeps_the_job_that_a_pod_waits_for():
    operator = await _operator(3)
    operator.cluster.agents["n0"].wanted = [wanted()]
    await operator.run(steps=3)
    operator.cluster.remove_model_cache("team", "llama")
    for agent in operator.cluster.agents.values():
        agent.is_up = agent is operator.cluster.agents["n0"]
    await operator.settle()
    operator.cluster.now_s += 600
    await operator.settle()
    on = {job["metadata"]["annotations"][ANNOTATION_NODE] for job in operator.cluster.active_jobs()}
    assert on <= {"n0"}
    await operator.run(steps=3)
    assert REVISION in operator.cluster.agents["n0"].models
    await operator.run(steps=5, step_s=600)
    assert operator.cluster.active_jobs() == []


async def test_nodes_keep_nothing_for_a_model_cache_that_is_gone():
    operator = await _operator(2)
    await operator.run()
    operator.cluster.remove_model_cache("team", "llama")
    await operator.run(steps=2)
    specs = [body["spec"] for body in operator.cluster.objects(CACHE_NODES)]
    assert [spec["models"] for spec in specs] == [[]] * 2


async def test_one_made_anew_under_the_same_name_does_not_trust_the_old_ones_proofs():
    operator = await _operator(2)
    await operator.run()
    operator.cluster.remove_model_cache("team", "llama")
    operator.cluster.put_model_cache(model_cache(uid="uid-2", version=9))
    await operator.settle()
    assert operator.cluster.condition("Resolved")["status"] == "Unknown"
    await operator.run()
    assert operator.cluster.condition("Ready")["status"] == "True"


async def test_a_model_too_large_for_a_node_is_said_and_not_tried_again_and_again():
    operator = await _operator(3)
    operator.cluster.agents["n1"].capacity_bytes = SIZE_BYTES // 2
    operator.cluster.agents["n2"].capacity_bytes = SIZE_BYTES // 2
    operator.cluster.report_all()
    await operator.run(steps=30)
    if operator.cluster.status()["nodes"]["ready"] == 1:
        assert operator.cluster.condition("Ready")["reason"] == "InsufficientCapacity"
        assert operator.cluster.status()["nodes"]["failed"] == 2
    assert operator.cluster.calls["create_job"] <= 3


async def test_two_models_that_do_not_fit_together_do_not_evict_each_other():
    operator = await _operator(1)
    agent = operator.cluster.agents["n0"]
    agent.capacity_bytes = SIZE_BYTES
    operator.cluster.report_all()
    await operator.run()
    other = model_cache("other", source={"uri": "s3://models/other"})
    operator.cluster.put_model_cache(other)
    agent.models[OTHER_REVISION] = held(OTHER_REVISION, "Fetching")
    await operator.run(steps=1)
    before = operator.cluster.calls["create_job"]
    agent.models.pop(OTHER_REVISION)
    await operator.run(steps=40, step_s=60)
    assert operator.cluster.calls["create_job"] - before <= 8
    assert operator.cluster.condition("Ready", "llama")["status"] == "True"


async def test_a_refused_job_is_said_in_status_and_on_the_pod_and_not_stormed():
    operator = await _operator(2)
    operator.cluster.refusal = "exceeded quota: jobs"
    operator.cluster.agents["n0"].wanted = [wanted("pod-7")]
    await operator.run(steps=60, step_s=1)
    found = operator.cluster.condition("Resolved")
    assert found["reason"] == "JobPending"
    assert "exceeded quota" in found["message"]
    assert operator.cluster.calls["create_job"] <= 4
    told = [e for e in operator.cluster.events if e["involvedObject"]["kind"] == "Pod"]
    assert len(told) == 1
    assert told[0]["involvedObject"]["name"] == "pod-7"
    operator.cluster.refusal = None
    await operator.run(steps=20)
    assert operator.cluster.condition("Ready")["status"] == "True"


async def test_a_job_that_a_policy_refused_too_early_is_there_within_seconds():
    """A policy may learn of a ModelCache a moment after the operator did."""
    operator = await _operator(1)
    operator.cluster.refusal = "no params found"
    await operator.settle()
    operator.cluster.refusal = None
    await operator.run(steps=5, step_s=1)
    assert len(operator.cluster.objects(JOBS)) == 1


async def test_many_nodes_that_finish_together_are_few_writes():
    operator = await _operator(100)
    await operator.run(steps=8, step_s=1)
    assert operator.cluster.status()["nodes"]["ready"] == 100
    assert operator.cluster.calls["write_status"] <= 15


async def test_finished_jobs_are_cleared_away():
    operator = await _operator(3)
    await operator.run(steps=100, step_s=10)
    assert operator.cluster.objects(JOBS) == []
    assert operator.cluster.condition("Ready")["status"] == "True"


@pytest.mark.parametrize("n_nodes", [200])
async def test_a_burst_of_jobs_comes_in_portions(n_nodes):
    operator = await _operator(n_nodes)
    await operator.settle()
    operator.cluster.step()
    await operator.settle()
    operator.cluster.step()
    await operator.settle(passes=5000)
    assert len(operator.cluster.active_jobs()) == n_nodes
