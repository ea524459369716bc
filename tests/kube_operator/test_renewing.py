"""Access is proved again before proofs run out: by one small Job per namespace and credentials."""

import json

import pytest

from modelcache_operator.kube.client import CACHE_NODES, JOBS
from support.cluster_objects import REVISION, model_cache
from support.simulated_cluster import SimulatedCluster
from support.simulated_operator import Operator

HOUR_S = 3600.0
DENIED = {"said": json.dumps({"reason": "AccessDenied", "message": "the store says no"})}


async def cluster_of(n_nodes, *model_caches):
    cluster = SimulatedCluster()
    for index in range(n_nodes):
        cluster.add_node(f"node-{index}")
    for body in model_caches:
        cluster.put_model_cache(body)
    operator = Operator(cluster)
    await operator.start()
    await operator.run()
    return operator


def proving(operator):
    return [
        job
        for job in operator.cluster.objects(JOBS)
        if job["metadata"]["labels"]["modelcache.io/role"] == "prove"
    ]


def sources(job):
    args = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args[0] == "prove"
    return [json.loads(a.removeprefix("--source=")) for a in args if a.startswith("--source=")]


async def pass_hours(operator, hours):
    operator.cluster.now_s += hours * HOUR_S
    operator.cluster.report_all()
    await operator.run(steps=8)


async def test_a_fresh_proof_is_left_alone():
    operator = await cluster_of(2, model_cache("llama"))
    await pass_hours(operator, 11)
    assert proving(operator) == []


async def test_one_job_renews_the_proofs_of_every_node():
    operator = await cluster_of(4, model_cache("llama"))
    before = operator.cluster.calls["create_job"]
    await pass_hours(operator, 12.5)
    assert operator.cluster.calls["create_job"] - before == 1
    [job] = proving(operator)
    [wish] = sources(job)
    assert (wish["modelCache"], wish["renews"]) == ("llama", REVISION)
    renewed = {
        proof["renewedAt"]
        for body in operator.cluster.objects(CACHE_NODES)
        for proof in body["status"]["proofs"]
    }
    assert len(renewed) == 1
    assert operator.cluster.condition("Ready")["status"] == "True"


async def test_models_of_the_same_credentials_share_a_job():
    operator = await cluster_of(2, *(model_cache(name) for name in ("llama", "mixtral", "qwen")))
    await pass_hours(operator, 12.5)
    [job] = proving(operator)
    assert {wish["modelCache"] for wish in sources(job)} == {"llama", "mixtral", "qwen"}


async def test_other_credentials_have_a_job_of_their_own():
    other = model_cache("mixtral")
    other["spec"]["source"]["credentials"] = {"serviceAccountName": "reader"}
    operator = await cluster_of(2, model_cache("llama"), other)
    await pass_hours(operator, 12.5)
    accounts = {
        job["spec"]["template"]["spec"].get("serviceAccountName") for job in proving(operator)
    }
    assert accounts == {None, "reader"}


async def test_withdrawn_access_ends_readiness_and_says_why():
    operator = await cluster_of(2, model_cache("llama"))
    operator.cluster.failure = DENIED
    await pass_hours(operator, 12.5)
    assert operator.cluster.condition("Ready")["status"] == "True"
    await pass_hours(operator, 12.5)
    ready = operator.cluster.condition("Ready")
    assert (ready["status"], ready["reason"]) == ("False", "AccessDenied")


async def test_a_renewal_that_fails_is_tried_again_and_no_more_often_than_it_should_be():
    operator = await cluster_of(2, model_cache("llama"))
    operator.cluster.failure = DENIED
    await pass_hours(operator, 12.5)
    assert len(proving(operator)) == 1
    await pass_hours(operator, 1)
    assert len(proving(operator)) == 2
    operator.cluster.failure = None
    await pass_hours(operator, 1)
    assert len(proving(operator)) == 3
    await pass_hours(operator, 1)
    assert len(proving(operator)) == 3


@pytest.mark.parametrize("hours", [12.5, 13.5])
async def test_no_proof_is_made_where_there_was_none(hours):
    operator = await cluster_of(2, model_cache("llama"))
    fresh = operator.cluster.agents["node-1"]
    fresh.proofs = []
    operator.cluster.agents["node-1"].is_up = True
    operator.cluster.report_all()
    operator.cluster.failure = DENIED
    await pass_hours(operator, hours)
    assert fresh.proofs == []
