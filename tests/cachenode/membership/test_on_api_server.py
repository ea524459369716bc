"""Membership and tokens before a real API server: what it really says of a Job's token."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from modelcache_api import crd
from modelcache_api.errors import AccessDeniedError
from modelcache_api.messages import NodeReport
from modelcache_api.names import AGENT_AUDIENCE
from modelcache_node.membership.api_server import ApiServer
from modelcache_node.membership.kubernetes import CacheNodeMembership
from modelcache_node.membership.tokens import TokenReviewer
from support.control_plane import _TOKEN as TOKEN, ApiServer as ControlPlane, control_plane
from support.tools import etcd, kube_apiserver

pytestmark = [pytest.mark.timeout(240), pytest.mark.looptime(False)]

ACCOUNT = "/api/v1/namespaces/team/serviceaccounts/default"
NODES = "/apis/modelcache.io/v1alpha1/cachenodes"
REVISION = "sha256:" + "a" * 64
#: Seconds for what happens in milliseconds; arbitrary, well above.
WITHIN_S = 30.0


@pytest.fixture(scope="module")
def plane(tmp_path_factory) -> Iterator[ControlPlane]:
    with control_plane(etcd(), kube_apiserver(), tmp_path_factory.mktemp("plane")) as plane:
        plane.create_cluster_object(crd.cache_node_crd())
        plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": "team"}})
        account = {"metadata": {"name": "default"}}
        plane.request("POST", "/api/v1/namespaces/team/serviceaccounts", account)
        for name in ("n1", "n2"):
            plane.request("POST", "/api/v1/nodes", {"metadata": {"name": name}})
            _start_pod(plane, f"job-on-{name}", name)
        yield plane


@pytest.fixture
async def api(plane):
    token = TOKEN
    async with ApiServer(plane.url, token=lambda: token, tls=plane.tls) as api:
        yield api


def _start_pod(plane: ControlPlane, name: str, node: str) -> None:
    containers = [{"name": "c", "image": "i"}]
    spec = {"nodeName": node, "serviceAccountName": "default", "containers": containers}
    plane.request(
        "POST", "/api/v1/namespaces/team/pods", {"metadata": {"name": name}, "spec": spec}
    )


def _token(plane: ControlPlane, *, audience: str = AGENT_AUDIENCE, pod: str | None = None) -> str:
    spec: dict = {"audiences": [audience], "expirationSeconds": 600}
    if pod:
        uid = plane.request("GET", f"/api/v1/namespaces/team/pods/{pod}")["metadata"]["uid"]
        spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid}
    answer = plane.request("POST", f"{ACCOUNT}/token", {"spec": spec})
    return answer["status"]["token"]


@pytest.fixture
def reviewer(api):
    return TokenReviewer(api, "n1", clock=time.monotonic)


async def test_the_token_of_a_pod_on_this_node_says_all_that_is_needed(plane, reviewer):
    identity = await reviewer.review(_token(plane, pod="job-on-n1"))
    assert (identity.namespace, identity.service_account) == ("team", "default")
    assert (identity.pod_name, identity.node_name) == ("job-on-n1", "n1")
    assert identity.pod_uid


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"pod": "job-on-n2"}, "runs on node n2"),
        ({"pod": "job-on-n1", "audience": "https://kubernetes.default.svc"}, "not valid"),
        ({}, "bound to a pod"),
    ],
)
async def test_a_token_of_another_node_audience_or_of_no_pod_is_refused(
    plane, reviewer, request_, says
):
    with pytest.raises(AccessDeniedError, match=says):
        await reviewer.review(_token(plane, **request_))


@pytest.mark.parametrize("token", ["", "not-a-token", "a.b.c"])
async def test_what_is_no_token_is_refused(reviewer, token):
    with pytest.raises(AccessDeniedError):
        await reviewer.review(token)


async def test_a_deleted_pods_token_is_refused(plane, api):
    _start_pod(plane, "gone", "n1")
    token = _token(plane, pod="gone")
    plane.request("DELETE", "/api/v1/namespaces/team/pods/gone", {"gracePeriodSeconds": 0})
    reviewer = TokenReviewer(api, "n1", clock=time.monotonic)
    async with asyncio.timeout(WITHIN_S):
        while True:  # the API server's authenticator remembers a token for some seconds
            try:
                await reviewer.review(token)
            except AccessDeniedError:
                return
            reviewer = TokenReviewer(api, "n1", clock=time.monotonic)
            await asyncio.sleep(0.2)


async def test_a_wish_arrives_and_a_report_is_taken_by_the_schema(plane, api):
    specs: asyncio.Queue = asyncio.Queue()

    async def report() -> NodeReport:
        return NodeReport(
            version="0.1.0",
            boot_id="boot-1",
            store_id="store-1",
            capacity_bytes=1 << 45,
            used_bytes=0,
            reserved_bytes=0,
            leases_reported=False,
            revisions=[],
            proofs=[],
            wanted=[],
        )

    membership = CacheNodeMembership(
        api,
        "n1",
        address="10.0.0.1:7440",
        report=report,
        on_spec=specs.put,
        now=lambda: datetime.now(UTC),
    )
    running = asyncio.create_task(membership.run())
    try:
        async with asyncio.timeout(WITHIN_S):
            body = {
                "apiVersion": "modelcache.io/v1alpha1",
                "kind": "CacheNode",
                "metadata": {"name": "n1"},
                "spec": {"models": []},
            }
            await api.create(NODES, body)
            assert (await specs.get()).models == ()
            wish = {"spec": {"models": [{"revision": REVISION, "pinned": True}]}}
            await api.merge(f"{NODES}/n1", wish)
            assert (await specs.get()).models[0].pinned
            while True:
                status = (await api.get(f"{NODES}/n1")).get("status", {})
                if status.get("storeId") == "store-1":
                    break
                await asyncio.sleep(0.05)
            assert status["capacityBytes"] == 1 << 45
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
