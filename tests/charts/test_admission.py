"""The chart's roles and admission policies, before a real API server: who gets what past it."""

import copy
import functools
import time
from collections.abc import Callable, Iterator

import pytest

from modelcache_api.model_cache import ModelCache
from modelcache_operator.planning.job_arguments import JobSettings, JobWish
from modelcache_operator.planning.jobs import job_manifest
from modelcache_operator.planning.observed import NodeView, Taint
from modelcache_operator.planning.renewal_jobs import renewal_manifest
from modelcache_operator.planning.renewing import RenewalJob
from support.charts import FULLNAME, NAMESPACE, Chart
from support.control_plane import (
    ADMINISTRATOR,
    NODE_NAME_EXTRA,
    ApiServer,
    Object,
    RefusedError,
    User,
    control_plane,
)
from support.tools import etcd, kube_apiserver

pytestmark = pytest.mark.timeout(240)

IMAGE = {"repository": "registry.example/modelcache", "tag": "1"}
OPERATOR = User(f"system:serviceaccount:{NAMESPACE}:{FULLNAME}-operator")
PLUGIN = User(f"system:serviceaccount:{NAMESPACE}:{FULLNAME}-csi")
JOBS = "/apis/batch/v1/namespaces/default/jobs"
CACHE_NODES = "/apis/modelcache.io/v1alpha1/cachenodes"
MODEL_CACHES = "/apis/modelcache.io/v1alpha1/namespaces/default/modelcaches"
#: A policy is enforced within about a second of its creation; arbitrary, well above.
EFFECTIVE_WITHIN_S = 60.0


def agent_on(node: str | None) -> User:
    extra = {} if node is None else {NODE_NAME_EXTRA: node}
    return User(f"system:serviceaccount:{NAMESPACE}:{FULLNAME}-agent", extra)


def cache_node(name: str) -> Object:
    return {
        "apiVersion": "modelcache.io/v1alpha1",
        "kind": "CacheNode",
        "metadata": {"name": name},
        "spec": {"models": []},
    }


MODEL_CACHE: Object = {
    "apiVersion": "modelcache.io/v1alpha1",
    "kind": "ModelCache",
    "metadata": {"name": "model", "namespace": "default"},
    "spec": {
        "source": {
            "uri": "s3://bucket/model",
            "endpoint": "https://store.example",
            "caConfigMapRef": {"name": "ca"},
            "credentials": {"secretRef": {"name": "s3"}},
        },
        "placement": {"tolerations": [{"key": "team", "operator": "Exists"}]},
    },
}


NODE = NodeView(
    name="n1",
    uid="u",
    labels={},
    taints=(Taint("nvidia.com/gpu", "present", "NoSchedule"),),
    boot_id="b",
    is_linux=True,
    not_ready_since=None,
)
SETTINGS = JobSettings(
    image="registry.example/modelcache:1",
    image_pull_policy="IfNotPresent",
    image_pull_secrets=("pull",),
    agent_url="https://10.96.0.7:7441",
    agent_ca_pem="-----BEGIN CERTIFICATE-----",
)


def prefetch_job() -> Object:
    """What the operator would create, so that it and the policy cannot drift apart."""
    metadata = {**MODEL_CACHE["metadata"], "uid": "0a0b0c0d-0000-4000-8000-000000000000"}
    return job_manifest(
        ModelCache.model_validate({**MODEL_CACHE, "metadata": metadata}),
        JobWish(node="n1", request="r" * 20, attempt=1),
        NODE,
        SETTINGS,
    )


@pytest.fixture(scope="module")
def api(chart: Chart, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server with the chart's cluster objects, once its policies are enforced."""
    folder = tmp_path_factory.mktemp("control-plane")
    rendered = chart.render(image=IMAGE)
    with control_plane(etcd(), kube_apiserver(), folder) as server:
        for kind in (
            "CustomResourceDefinition",
            "ClusterRole",
            "ClusterRoleBinding",
            "ValidatingAdmissionPolicy",
            "ValidatingAdmissionPolicyBinding",
        ):
            for found in rendered.all(kind):
                server.create_cluster_object(found)
        _wait_until_enforced(server)
        server.request("POST", CACHE_NODES, cache_node("n1"), user=OPERATOR)
        server.request("POST", MODEL_CACHES, MODEL_CACHE)
        good = functools.partial(server.request, "POST", f"{JOBS}?dryRun=All", user=OPERATOR)
        _wait_for(lambda: good(prefetch_job()), is_refused=False)
        yield server


def _wait_until_enforced(server: ApiServer) -> None:
    bad_job = prefetch_job()
    bad_job["spec"]["template"]["spec"]["hostNetwork"] = True
    others_job = accessed(serviceAccountName="another")
    probe = f"{CACHE_NODES}/probe"

    def make_and_unmake() -> None:
        server.request("POST", CACHE_NODES, cache_node("probe"))
        server.request("DELETE", probe)

    _wait_for(make_and_unmake)
    for job in (bad_job, others_job):
        _wait_for(
            functools.partial(server.request, "POST", f"{JOBS}?dryRun=All", job, user=OPERATOR)
        )


def _wait_for(attempt: Callable[[], object], *, is_refused: bool = True) -> None:
    """Until a policy refuses it, or lets it pass: what is made takes effect a moment later."""
    give_up_at = time.monotonic() + EFFECTIVE_WITHIN_S
    while time.monotonic() < give_up_at:
        try:
            attempt()
            if not is_refused:
                return
        except RefusedError as e:
            if is_refused and "ValidatingAdmissionPolicy" in str(e):
                return
        time.sleep(0.2)
    raise AssertionError("policies are not enforced")


def test_every_policy_is_free_of_type_errors(api: ApiServer) -> None:
    base = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
    for policy in api.request("GET", base)["items"]:
        assert "expressionWarnings" not in policy.get("status", {}).get("typeChecking", {}), policy


def test_promise_an_agent_speaks_for_its_own_node(api: ApiServer) -> None:
    body = {"status": {"bootId": "b1"}}
    written = api.request("PATCH", f"{CACHE_NODES}/n1/status", body, user=agent_on("n1"))
    assert written["status"]["bootId"] == "b1"


@pytest.mark.parametrize("node", ["n2", None])
def test_promise_an_agent_speaks_for_its_own_node__and_for_no_other(
    api: ApiServer, node: str | None
) -> None:
    body = {"status": {"bootId": "forged"}}
    with pytest.raises(RefusedError, match="status of its own node only"):
        api.request("PATCH", f"{CACHE_NODES}/n1/status", body, user=agent_on(node))


def test_not_even_an_administrator_writes_a_node_s_status(api: ApiServer) -> None:
    body = {"status": {"bootId": "forged"}}
    with pytest.raises(RefusedError, match="only the agent writes"):
        api.request("PATCH", f"{CACHE_NODES}/n1/status", body)


def test_an_agent_does_not_write_what_its_node_should_keep(api: ApiServer) -> None:
    with pytest.raises(RefusedError, match="cannot patch resource"):
        api.request("PATCH", f"{CACHE_NODES}/n1", {"spec": {"models": []}}, user=agent_on("n1"))


def test_only_the_operator_says_what_a_node_should_keep(api: ApiServer) -> None:
    revision = "sha256:" + "0" * 64
    body = {"spec": {"models": [{"revision": revision, "pinned": False}]}}
    with pytest.raises(RefusedError, match="only the operator writes"):
        api.request("PATCH", f"{CACHE_NODES}/n1", body)
    api.request("PATCH", f"{CACHE_NODES}/n1", body, user=OPERATOR)


def test_an_administrator_may_label_and_delete_a_cache_node(api: ApiServer) -> None:
    api.request("POST", CACHE_NODES, cache_node("n3"), user=OPERATOR)
    labelled = {"metadata": {"labels": {"rack": "7"}}}
    assert api.request("PATCH", f"{CACHE_NODES}/n3", labelled)["metadata"]["labels"]["rack"] == "7"
    api.request("DELETE", f"{CACHE_NODES}/n3")


def test_only_the_operator_writes_the_status_of_a_model_cache(api: ApiServer) -> None:
    body = {"status": {"observedGeneration": 1}}
    for user in (ADMINISTRATOR, agent_on("n1"), PLUGIN):
        with pytest.raises(RefusedError, match=r"only the operator writes|cannot patch"):
            api.request("PATCH", f"{MODEL_CACHES}/model/status", body, user=user)
    api.request("PATCH", f"{MODEL_CACHES}/model/status", body, user=OPERATOR)


def test_the_operator_starts_prefetch_jobs(api: ApiServer) -> None:
    api.request("POST", f"{JOBS}?dryRun=All", prefetch_job(), user=OPERATOR)


def test_the_operator_starts_jobs_that_prove_access(api: ApiServer) -> None:
    metadata = {**MODEL_CACHE["metadata"], "uid": "0a0b0c0d-0000-4000-8000-000000000000"}
    status = {"revision": "sha256:" + "a" * 64}
    body = {**MODEL_CACHE, "metadata": metadata, "status": status}
    job = RenewalJob("default/s3", "n1", 7, (ModelCache.model_validate(body),))
    api.request("POST", f"{JOBS}?dryRun=All", renewal_manifest(job, NODE, SETTINGS), user=OPERATOR)


def test_whoever_else_may_make_jobs_makes_what_he_likes(api: ApiServer) -> None:
    job = prefetch_job()
    job["spec"]["template"]["spec"]["containers"][0]["image"] = "busybox"
    api.request("POST", f"{JOBS}?dryRun=All", job)


def changed(path: str, value: object) -> Object:
    """A prefetch Job whose pod differs in one place; `path` is dotted, digits index lists."""
    job = copy.deepcopy(prefetch_job())
    at = job["spec"]["template"]["spec"]
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        at = at[part]
    if isinstance(at, list) and last == len(at):
        at.append(value)
    elif value is None:
        del at[last]
    else:
        at[last] = value
    return job


API_TOKEN = {"serviceAccountToken": {"path": "api", "audience": "https://kubernetes.default.svc"}}
DEFAULT_TOKEN = {"serviceAccountToken": {"path": "api"}}
SHELL = {"name": "sh", "image": "busybox", "command": ["sh"]}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("containers.0.image", "busybox", "image of this release"),
        ("containers.0.command", ["sh", "-c", "id"], "runs `modelcache prefetch`"),
        ("containers.0.command", None, "runs `modelcache prefetch`"),
        ("containers.0.args", ["agent"], "runs `modelcache prefetch`"),
        ("containers.0.args", None, "runs `modelcache prefetch`"),
        ("containers.0.lifecycle", {"preStop": {"exec": {"command": ["sh"]}}}, "no other command"),
        ("containers.0.workingDir", "/tmp", "environment is fixed"),
        ("containers.0.envFrom", [{"secretRef": {"name": "s3"}}], "environment is fixed"),
        (
            "containers.0.env.0",
            {"name": "PYTHONPATH", "value": "/var/run/modelcache/source-ca"},
            "environment is fixed",
        ),
        (
            "containers.0.env.0",
            {"name": "HOME", "value": "/var/run/modelcache/source-ca"},
            "environment is fixed",
        ),
        (
            "containers.0.volumeMounts.0",
            {"name": "source-ca", "mountPath": "/usr/lib/python3"},
            "nothing over its image",
        ),
        (
            "volumes.1",
            {"name": "tmp", "configMap": {"name": "ca"}},
            "nothing over its image",
        ),
        ("containers.1", SHELL, "one container"),
        ("initContainers", [SHELL], "one container"),
        ("automountServiceAccountToken", None, "no API token"),
        ("automountServiceAccountToken", True, "no API token"),
        ("hostNetwork", True, "namespaces of its own"),
        ("hostPID", True, "namespaces of its own"),
        ("hostIPC", True, "namespaces of its own"),
        ("volumes.0", {"name": "agent", "hostPath": {"path": "/"}}, "Secrets, ConfigMaps"),
        (
            "volumes.0",
            {"name": "agent", "persistentVolumeClaim": {"claimName": "c"}},
            "Secrets, ConfigMaps",
        ),
        ("volumes.0.projected.sources.0", API_TOKEN, "for the agent only"),
        ("volumes.0.projected.sources.2", DEFAULT_TOKEN, "for the agent only"),
        ("securityContext.runAsNonRoot", None, "pod is restricted"),
        ("securityContext.seccompProfile", {"type": "Unconfined"}, "pod is restricted"),
        ("securityContext.runAsUser", 0, "restricted"),
        ("containers.0.securityContext", None, "container is restricted"),
        ("containers.0.securityContext.privileged", True, "privileged"),
        ("containers.0.securityContext.allowPrivilegeEscalation", True, "container is restricted"),
        ("containers.0.securityContext.readOnlyRootFilesystem", None, "container is restricted"),
        ("containers.0.securityContext.capabilities", None, "container is restricted"),
        (
            "containers.0.securityContext.capabilities",
            {"drop": ["ALL"], "add": ["SYS_ADMIN"]},
            "container is restricted",
        ),
    ],
)
def test_the_operator_s_token_is_good_for_prefetch_jobs_only(
    api: ApiServer, path: str, value: object, message: str
) -> None:
    with pytest.raises(RefusedError, match=message) as refused:
        api.request("POST", f"{JOBS}?dryRun=All", changed(path, value), user=OPERATOR)
    assert refused.value.status in (403, 422)


def accessed(**spec: object) -> Object:
    """A prefetch Job whose pod has another access than its ModelCache names."""
    job = prefetch_job()
    job["spec"]["template"]["spec"] |= spec
    return job


def volumes_but(name: str, **source: object) -> list[Object]:
    given = prefetch_job()["spec"]["template"]["spec"]["volumes"]
    return [*(one for one in given if one["name"] != name), {"name": name, **source}]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"volumes": volumes_but("credentials", secret={"secretName": "another"})},
            "mounts the Secret that its ModelCache names",
        ),
        (
            {"volumes": volumes_but("more", secret={"secretName": "another"})},
            "mounts the Secret that its ModelCache names",
        ),
        (
            {"volumes": volumes_but("more", projected={"sources": [{"secret": {"name": "x"}}]})},
            "mounts Secrets and ConfigMaps by themselves",
        ),
        (
            {"volumes": volumes_but("source-ca", configMap={"name": "another"})},
            "mounts the ConfigMap that its ModelCache names",
        ),
        ({"serviceAccountName": "another"}, "runs as the ServiceAccount that its ModelCache names"),
        ({"serviceAccount": "another"}, "runs as the ServiceAccount that its ModelCache names"),
    ],
)
def test_a_job_has_the_secret_and_the_service_account_that_its_model_cache_names(
    api: ApiServer, spec: Object, message: str
) -> None:
    """Cross-tenant secret (CVE-2026-39961): whoever holds the operator's token reads no other."""
    with pytest.raises(RefusedError, match=message):
        api.request("POST", f"{JOBS}?dryRun=All", accessed(**spec), user=OPERATOR)


def test_a_job_that_names_no_model_cache_is_refused(api: ApiServer) -> None:
    job = prefetch_job()
    del job["metadata"]["annotations"]
    with pytest.raises(RefusedError, match="names its ModelCache"):
        api.request("POST", f"{JOBS}?dryRun=All", job, user=OPERATOR)


def test_a_namespace_without_a_model_cache_has_no_prefetch_jobs(api: ApiServer) -> None:
    api.request("POST", "/api/v1/namespaces", {"metadata": {"name": "bare"}})
    job = prefetch_job()
    job["metadata"]["namespace"] = "bare"
    path = "/apis/batch/v1/namespaces/bare/jobs?dryRun=All"
    with pytest.raises(RefusedError, match="no params found"):
        api.request("POST", path, job, user=OPERATOR)


def test_a_job_may_have_what_another_model_cache_of_its_namespace_does_not_name(
    api: ApiServer,
) -> None:
    other = copy.deepcopy(MODEL_CACHE)
    other["metadata"]["name"] = "other"
    other["spec"]["source"]["credentials"] = {"serviceAccountName": "reader"}
    api.request("POST", MODEL_CACHES, other)
    job = prefetch_job()
    api.request("POST", f"{JOBS}?dryRun=All", job, user=OPERATOR)
    job["metadata"]["annotations"]["modelcache.io/model-cache"] = "other"
    _wait_for(functools.partial(api.request, "POST", f"{JOBS}?dryRun=All", job, user=OPERATOR))


def test_the_operator_reads_no_secret(api: ApiServer) -> None:
    with pytest.raises(RefusedError, match="cannot get resource"):
        api.request("GET", "/api/v1/namespaces/default/secrets/s3", user=OPERATOR)
