"""Namespaces with rules of their own: `restricted` works, and what cannot says why."""

from collections.abc import Callable

import pytest

from e2e.lab.commands import wait_until
from e2e.library import Library
from e2e.pods import Fields, container, inline, mount, pod
from e2e.tenants import LOOK_INTERVAL_S, Tenant

REASON_TIMEOUT_S = 90.0
RESTRICTED = {
    "pod-security.kubernetes.io/enforce": "restricted",
    "pod-security.kubernetes.io/warn": "restricted",
}


def quota(name: str, **hard: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": name},
        "spec": {"hard": hard},
    }


@pytest.fixture(scope="module")
def crowded(new_tenant: Callable[..., Tenant], library: Library, nodes: list[str]) -> Tenant:
    """A tenant whose one pod leaves no room for a Job. It takes half a minute to be noticed."""
    tenant = new_tenant("crowded", **RESTRICTED)
    tenant.start(quota("one-pod", pods="1"))
    wait_used(tenant, "one-pod", "0")  # before that it is not enforced
    tenant.start(reading_pod(tenant, nodes[0]))
    wait_used(tenant, "one-pod", "1")
    tenant.declare("model", library.book("crowded", 32).uri, node=nodes[0])
    return tenant


def wait_used(tenant: Tenant, name: str, pods: str) -> None:
    """Wait until Kubernetes has counted this many pods against a quota."""

    def is_counted() -> bool:
        found: Fields = tenant.cluster.get("resourcequota", name, tenant.namespace)
        return bool(found.get("status", {}).get("used", {}).get("pods") == pods)

    wait_until(
        is_counted,
        f"{pods} pods to be counted against the quota {name}",
        timeout_s=REASON_TIMEOUT_S,
        interval_s=LOOK_INTERVAL_S,
    )


def reading_pod(tenant: Tenant, node: str) -> Fields:
    reader = container("reader", tenant.cluster.image, ("read_all", "/model"), [mount("model")])
    return pod("reader", [reader], [inline("model", "model")], node=node)


def test_a_restricted_namespace_with_a_quota_gets_its_model(
    crowded: Tenant, new_tenant: Callable[..., Tenant], library: Library, nodes: list[str]
) -> None:
    tenant = new_tenant("restricted", **RESTRICTED)
    hard = {"pods": "10", "requests.cpu": "1", "requests.memory": "1Gi"}
    tenant.start(quota("some", **hard, **{"limits.cpu": "10", "limits.memory": "4Gi"}))
    book = library.book("restricted", 32)
    tenant.declare("model", book.uri)
    tenant.wait_ready("model")
    tenant.start(reading_pod(tenant, nodes[0]))
    tenant.wait_finished("reader")
    assert tenant.report("reader")["sums"] == {"/model": book.sums}


def test_a_quota_without_room_is_named_in_status_and_on_the_waiting_pod(crowded: Tenant) -> None:
    def said() -> list[str]:
        conditions = crowded.status("model").get("conditions", [])
        return [found["message"] for found in conditions if "one-pod" in found["message"]]

    wait_until(
        said, "the quota's name in status", timeout_s=REASON_TIMEOUT_S, interval_s=LOOK_INTERVAL_S
    )
    event = crowded.wait_event("reader", "WaitingForModel", "one-pod")
    assert event["type"] == "Warning"
