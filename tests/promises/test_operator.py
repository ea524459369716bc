"""Promises that the operator keeps, over a cluster in memory."""

from support.cluster_objects import model_cache
from support.simulated_cluster import SimulatedCluster
from support.simulated_operator import Operator


async def _ready_on_three_nodes() -> Operator:
    cluster = SimulatedCluster()
    for name in ("n1", "n2", "n3"):
        cluster.add_node(name)
    cluster.put_model_cache(model_cache())
    operator = Operator(cluster)
    await operator.start()
    await operator.settle()
    cluster.report_all()
    await operator.run()
    assert cluster.status()["nodes"]["ready"] == 3
    return operator


async def _look_again(operator: Operator) -> None:
    operator.cluster.report_all()
    for key in operator.snapshot.all_keys():
        operator.queue.add(key)
    await operator.settle()


async def test_promise_stale_status_is_not_ready() -> None:
    operator = await _ready_on_three_nodes()
    operator.cluster.agents["n1"].is_up = False
    for _ in range(5):
        operator.cluster.now_s += 60
        await _look_again(operator)
    assert operator.cluster.status()["nodes"]["ready"] == 2
    assert operator.cluster.condition("Ready")["status"] == "False"
    operator.cluster.agents["n1"].is_up = True
    await _look_again(operator)
    assert operator.cluster.status()["nodes"]["ready"] == 3


async def test_promise_stale_status_is_not_ready__of_a_wiped_disk() -> None:
    operator = await _ready_on_three_nodes()
    wiped = operator.cluster.agents["n1"]
    wiped.models, wiped.proofs, wiped.store = {}, [], 2
    await _look_again(operator)
    assert operator.cluster.status()["nodes"]["ready"] == 2
