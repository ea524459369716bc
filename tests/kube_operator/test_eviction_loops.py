"""Models that do not fit together: no eviction brings a Job that brings an eviction, for ever."""

from modelcache_operator.planning.jobs import ROLE_PREFETCH
from support.cluster_objects import OTHER_REVISION, REVISION, SIZE_BYTES, model_cache, wanted
from support.simulated_cluster import Agent, SimulatedCluster
from support.simulated_operator import Operator

HOURS = 6 * 60
#: Small Jobs that prove access again move nothing.
FETCHES = f"create_job of {ROLE_PREFETCH}"


async def two_models_on_a_node_for_one() -> tuple[Operator, Agent]:
    """`llama` is on the node; `mistral` was declared later, and there is no room for it."""
    cluster = SimulatedCluster()
    agent = cluster.add_node("n0")
    agent.capacity_bytes = SIZE_BYTES
    cluster.revisions["mistral"] = OTHER_REVISION
    cluster.put_model_cache(model_cache("llama"))
    operator = Operator(cluster)
    await operator.start()
    await operator.run()
    assert list(agent.models) == [REVISION]
    cluster.put_model_cache(model_cache("mistral", source={"uri": "s3://models/mistral"}))
    await operator.run()
    return operator, agent


def waits_for(name: str) -> dict[str, str]:
    return {**wanted(f"pod-of-{name}", uid=f"uid-of-{name}"), "modelCache": name}


async def test_two_models_do_not_drive_each_other_out_in_turns() -> None:
    """That the second does not fit is known once it was listed; then it is over."""
    operator, agent = await two_models_on_a_node_for_one()
    cluster = operator.cluster
    await operator.run(steps=10, step_s=60)
    before, there = cluster.calls[FETCHES], list(agent.models)
    await operator.run(steps=HOURS, step_s=60)
    assert cluster.calls[FETCHES] == before
    assert list(agent.models) == there
    [other] = {REVISION, OTHER_REVISION} - set(there)
    found = cluster.condition("Ready", "llama" if other == REVISION else "mistral")
    assert (found["status"], found["reason"]) == ("False", "InsufficientCapacity")
    assert "needs 1000 bytes more, and 0 can be made free" in found["message"]


async def test_what_a_pod_drove_out_comes_back_only_for_a_pod() -> None:
    operator, agent = await two_models_on_a_node_for_one()
    cluster = operator.cluster
    for name, revision in (("mistral", OTHER_REVISION), ("llama", REVISION)):
        agent.wanted = [waits_for(name)]
        await operator.run(steps=40)
        assert list(agent.models) == [revision], f"a pod asked for {name}"
        before = cluster.calls[FETCHES]
        await operator.run(steps=HOURS, step_s=60)
        assert list(agent.models) == [revision]
        assert cluster.calls[FETCHES] == before, "nobody asked for the other"
    found = cluster.condition("Ready", "mistral")
    assert (found["status"], found["reason"]) == ("False", "InsufficientCapacity")


async def test_what_was_driven_out_comes_back_where_there_is_room_again() -> None:
    operator, agent = await two_models_on_a_node_for_one()
    agent.wanted = [waits_for("mistral")]
    await operator.run(steps=40)
    assert list(agent.models) == [OTHER_REVISION]
    agent.capacity_bytes = 2 * SIZE_BYTES
    await operator.run(steps=120, step_s=60)
    assert set(agent.models) == {REVISION, OTHER_REVISION}
    assert operator.cluster.condition("Ready", "llama")["status"] == "True"
    assert operator.cluster.condition("Ready", "mistral")["status"] == "True"
