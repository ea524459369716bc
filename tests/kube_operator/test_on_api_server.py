"""The operator as a process before a real API server; tests play agents and Job controller."""

import signal
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from modelcache_api import crd
from modelcache_api.names import ANNOTATION_NODE, ANNOTATION_REQUEST
from support.cluster_objects import REVISION, held, model_cache, node, stamp
from support.control_plane import ApiServer, RefusedError, control_plane
from support.tools import etcd, kube_apiserver
from support.wire import Wire, wire_to

pytestmark = pytest.mark.timeout(240)

NODES = ("n1", "n2", "n3")
OURS = "/apis/modelcache.io/v1alpha1"
JOBS = "/apis/batch/v1/namespaces/team/jobs"
MODEL_CACHES = f"{OURS}/namespaces/team/modelcaches"
#: What takes longer is broken; arbitrary, well above what is seen.
WITHIN_S = 60.0


def eventually(look: Callable[[], Any]) -> Any:
    """What `look` finds, once it finds something."""
    give_up_at = time.monotonic() + WITHIN_S
    while time.monotonic() < give_up_at:
        found = look()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {WITHIN_S} s: {look.__doc__ or look}")


@pytest.fixture(scope="module")
def api(tmp_path_factory) -> Iterator[ApiServer]:
    with control_plane(etcd(), kube_apiserver(), tmp_path_factory.mktemp("plane")) as api:
        for definition in (crd.model_cache_crd(), crd.cache_node_crd()):
            api.create_cluster_object(definition)
        namespace = {"metadata": {"name": "team"}}
        api.request("POST", "/api/v1/namespaces", namespace)
        for name in NODES:
            body = node(name)
            del body["metadata"]["resourceVersion"], body["metadata"]["uid"]
            api.request("POST", "/api/v1/nodes", body)
            api.request("PATCH", f"/api/v1/nodes/{name}", {"spec": {"taints": None}})
            api.request("PATCH", f"/api/v1/nodes/{name}/status", {"status": body["status"]})

        def served():
            try:
                return api.request("GET", f"{OURS}/cachenodes") and api.request("GET", MODEL_CACHES)
            except RefusedError:
                return None

        eventually(served)
        yield api


@pytest.fixture(scope="module")
def wire(api) -> Iterator[Wire]:
    """The operator's way to the API server."""
    where = urllib.parse.urlsplit(api.url)
    assert where.hostname
    assert where.port
    with wire_to(where.hostname, where.port) as wire:
        yield wire


@pytest.fixture(scope="module")
def operator(api, wire, tmp_path_factory) -> Iterator[subprocess.Popen]:
    folder = tmp_path_factory.mktemp("operator")
    ca = folder / "ca.crt"
    ca.write_text("-----BEGIN CERTIFICATE-----\n")
    kubeconfig = api.kubeconfig(folder / "kubeconfig")
    kubeconfig.write_text(kubeconfig.read_text().replace(api.url, f"https://127.0.0.1:{wire.port}"))
    command = [
        *(sys.executable, "-m", "modelcache_operator", "--image=registry.example/modelcache:1"),
        *("--agent-host=10.96.0.7", "--agent-port=7443", f"--agent-ca-file={ca}"),
        *("--health-listen=127.0.0.1:0", f"--kubeconfig={kubeconfig}"),
        "--log-level=debug",
    ]
    log = folder / "operator.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(30)
            text = log.read_text()
            sys.stderr.write(text)
    assert status == 0, text
    assert "Traceback" not in text


def report(api: ApiServer, name: str, **status: Any) -> None:
    """What the agent of a node would say."""
    given = {
        "version": "0.1.0",
        "address": "10.0.0.1:7400",
        "bootId": "boot-1",
        "storeId": f"store-of-{name}",
        "heartbeatAt": stamp(datetime.now(UTC)),
        "capacityBytes": 10**6,
    }
    api.request("PATCH", f"{OURS}/cachenodes/{name}/status", {"status": given | status})


def jobs_of(api: ApiServer, name: str) -> dict[str, Any]:
    """Node to Job."""
    found = api.request("GET", JOBS)["items"]
    return {
        job["metadata"]["annotations"][ANNOTATION_NODE]: job
        for job in found
        if job["metadata"]["annotations"]["modelcache.io/model-cache"] == name
    }


def condition(api: ApiServer, name: str, kind: str) -> dict[str, Any]:
    status = api.request("GET", f"{MODEL_CACHES}/{name}").get("status", {})
    return next((c for c in status.get("conditions", ()) if c["type"] == kind), {})


def proof_for(api: ApiServer, name: str, job: dict[str, Any]) -> dict[str, Any]:
    found = api.request("GET", f"{MODEL_CACHES}/{name}")
    return {
        "namespace": "team",
        "modelCache": name,
        "modelCacheUid": found["metadata"]["uid"],
        "request": job["metadata"]["annotations"][ANNOTATION_REQUEST],
        "revision": REVISION,
        "at": stamp(datetime.now(UTC)),
    }


def declare(api: ApiServer, name: str, **source: Any) -> None:
    body = model_cache(name, source=source)
    api.request(
        "POST",
        MODEL_CACHES,
        {key: body[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": {"name": name}},
    )


def test_a_model_goes_from_declared_to_ready_on_every_node(api, operator):
    for name in NODES:
        eventually(lambda name=name: name in _names(api, "cachenodes"))
        report(api, name)
    declare(api, "llama")

    first = eventually(lambda: jobs_of(api, "llama"))
    assert len(first) == 1, "one Job lists the source"
    (resolver,) = first
    assert eventually(lambda: condition(api, "llama", "Resolved"))["reason"] == "Resolving"

    proof = proof_for(api, "llama", first[resolver])
    report(api, resolver, models=[held(state="Fetching")], proofs=[proof])
    all_jobs = eventually(lambda: len(jobs_of(api, "llama")) == 3 and jobs_of(api, "llama"))
    assert set(all_jobs) == set(NODES)
    eventually(lambda: condition(api, "llama", "Resolved").get("status") == "True")
    assert condition(api, "llama", "Progressing")["status"] == "True"

    for name in NODES:
        report(api, name, models=[held()], proofs=[proof])
    eventually(lambda: condition(api, "llama", "Ready").get("status") == "True")
    status = api.request("GET", f"{MODEL_CACHES}/llama")["status"]
    assert status["revision"] == REVISION
    assert status["nodes"] == {"desired": 3, "ready": 3, "fetching": 0, "failed": 0}
    assert status["integrity"] == "StoreChecksum"
    kept = api.request("GET", f"{OURS}/cachenodes/{resolver}")["spec"]["models"]
    assert kept == [{"revision": REVISION, "pinned": False}]
    reasons = {event["reason"] for event in _events(api, "llama")}
    assert {"Resolved", "Ready"} <= reasons


def test_a_bad_source_is_said_once_and_not_stormed(api, operator):
    declare(api, "absent", uri="s3://no-such-bucket/model")
    ((_, job),) = eventually(lambda: jobs_of(api, "absent")).items()
    name = job["metadata"]["name"]
    failed = [
        {
            "type": kind,
            "status": "True",
            "reason": "PodFailurePolicy",
            "message": "Container prefetch failed with exit code 42",
            "lastTransitionTime": stamp(datetime.now(UTC)),
            "lastProbeTime": stamp(datetime.now(UTC)),
        }
        for kind in ("FailureTarget", "Failed")
    ]
    started = {"startTime": stamp(datetime.now(UTC))}
    status = started | {"failed": 1, "conditions": failed}
    api.request("PATCH", f"{JOBS}/{name}/status", {"status": status})
    found = eventually(lambda: condition(api, "absent", "Resolved").get("status") == "False")
    assert found
    assert condition(api, "absent", "Degraded")["status"] == "True"
    assert len(jobs_of(api, "absent")) == 1


def test_an_api_server_that_was_away_is_caught_up_with(api, wire, operator):
    for name in NODES:
        eventually(lambda name=name: name in _names(api, "cachenodes"))
    wire.cut()
    time.sleep(3)  # kopf's watches and the client's connections all meet the outage
    declare(api, "missed")
    api.request("DELETE", f"{OURS}/cachenodes/n2")
    for name in ("n1", "n3"):
        report(api, name)
    assert not jobs_of(api, "missed")
    wire.mend()
    eventually(lambda: jobs_of(api, "missed"))
    assert operator.poll() is None


def test_a_deleted_cache_node_is_made_again(api, operator):
    before = eventually(lambda: "n3" in _names(api, "cachenodes"))
    assert before
    uid = api.request("GET", f"{OURS}/cachenodes/n3")["metadata"]["uid"]
    api.request("DELETE", f"{OURS}/cachenodes/n3")

    def again():
        return "n3" in _names(api, "cachenodes") and (
            api.request("GET", f"{OURS}/cachenodes/n3")["metadata"]["uid"] != uid
        )

    eventually(again)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"uri": "gopher://models/x"}, "unknown scheme; supported: s3://, gs://"),
        ({"endpoint": "ftp://store"}, "an endpoint is http(s)://host[:port]"),
        ({"endpoint": "https://user:pw@store"}, "without a user name"),
        ({"credentials": {}}, "name exactly one of"),
        (
            {"credentials": {"secretRef": {"name": "s3"}, "anonymous": True}},
            "name exactly one of",
        ),
        ({"credentials": {"anonymous": False}}, "Unsupported value"),
        ({"include": ["x"] * 33}, "Too many"),
        ({"uri": "s3://b/" + "x" * 2000}, "Too long"),
    ],
)
def test_a_source_that_makes_no_sense_is_refused_with_the_reason(api, change, says):
    with pytest.raises(
        RefusedError,
        match=says.replace("(", r"\(").replace(")", r"\)").replace("[", r"\[").replace("]", r"\]"),
    ):
        declare(api, "bad", **change)


def test_a_toleration_that_kubernetes_would_refuse_in_the_job_is_refused_here(api):
    body = model_cache("bad", tolerations=[{"operator": "Exists", "key": "a", "value": "b"}])
    body["metadata"] = {"name": "bad"}
    with pytest.raises(RefusedError, match="operator Exists takes no value"):
        api.request("POST", MODEL_CACHES, body)


def _names(api: ApiServer, plural: str) -> set[str]:
    return {item["metadata"]["name"] for item in api.request("GET", f"{OURS}/{plural}")["items"]}


def _events(api: ApiServer, name: str) -> list[dict[str, Any]]:
    found = api.request("GET", "/api/v1/namespaces/team/events")["items"]
    return [event for event in found if event["involvedObject"]["name"] == name]
