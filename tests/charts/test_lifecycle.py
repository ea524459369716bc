"""Install, upgrade, uninstall: helm against a real API server without nodes."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.charts import CHART, FULLNAME, NAMESPACE, RELEASE
from support.control_plane import ApiServer, Object, RefusedError, control_plane
from support.tools import etcd, helm, kube_apiserver

pytestmark = pytest.mark.timeout(240)

SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"
AGENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/{FULLNAME}-agent"
DEFINITION = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/modelcaches.modelcache.io"
#: Where the chart leaves objects of its own.
LISTS = (
    SECRETS,
    f"/api/v1/namespaces/{NAMESPACE}/configmaps",
    f"/api/v1/namespaces/{NAMESPACE}/services",
    f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts",
    f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets",
    f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments",
    f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies",
    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
    "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
    "/apis/storage.k8s.io/v1/csidrivers",
)


@dataclass(frozen=True)
class Cluster:
    """An API server, and a helm that talks to it."""

    api: ApiServer
    helm: Path
    folder: Path

    def run(self, *args: str) -> str:
        done = subprocess.run(
            [str(self.helm), *args, "--namespace", NAMESPACE],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
            env={
                "KUBECONFIG": str(self.api.kubeconfig(self.folder / "kubeconfig")),
                "HOME": str(self.folder),
            },
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def install(self, *args: str) -> None:
        self.run("upgrade", "--install", "--create-namespace", RELEASE, str(CHART), *args)

    def secret(self, name: str) -> dict[str, str]:
        return self.api.request("GET", f"{SECRETS}/{FULLNAME}-{name}")["data"]

    def agent_pods(self) -> Object:
        return self.api.request("GET", AGENTS)["spec"]["template"]

    def ours(self) -> list[str]:
        selector = f"labelSelector=app.kubernetes.io/instance={RELEASE}"
        found = (self.api.request("GET", f"{path}?{selector}") for path in LISTS)
        return [f"{one['kind']}/{o['metadata']['name']}" for one in found for o in one["items"]]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with control_plane(etcd(), kube_apiserver(), folder) as api:
        yield Cluster(api, helm(), folder)


@pytest.fixture
def installed(cluster: Cluster) -> Iterator[Cluster]:
    cluster.install()
    yield cluster
    cluster.run("uninstall", RELEASE, "--ignore-not-found")


def test_an_upgrade_keeps_key_and_certificate_and_restarts_nothing(installed: Cluster) -> None:
    before = [installed.secret(name) for name in ("cluster-key", "agent-tls")]
    pods = installed.agent_pods()
    installed.install()
    assert [installed.secret(name) for name in ("cluster-key", "agent-tls")] == before
    assert installed.agent_pods() == pods


def test_a_deleted_certificate_is_made_anew_and_its_holders_are_restarted(
    installed: Cluster,
) -> None:
    key, certificate = installed.secret("cluster-key"), installed.secret("agent-tls")
    pods = installed.agent_pods()
    installed.api.request("DELETE", f"{SECRETS}/{FULLNAME}-agent-tls")
    installed.install()
    assert installed.secret("cluster-key") == key
    assert installed.secret("agent-tls")["tls.key"] != certificate["tls.key"]
    assert installed.agent_pods() != pods


def test_uninstalling_leaves_the_definitions_and_nothing_else(installed: Cluster) -> None:
    assert installed.ours()
    installed.run("uninstall", RELEASE)
    assert installed.ours() == []
    assert installed.api.request("GET", DEFINITION)["metadata"]["name"]


def test_a_new_release_takes_over_the_definitions_that_an_old_one_left(installed: Cluster) -> None:
    installed.run("uninstall", RELEASE)
    installed.install()
    assert installed.ours()


def test_helm_would_refuse_a_second_release(installed: Cluster) -> None:
    """Driver and definitions have one name in a cluster, so two releases cannot share it."""
    with pytest.raises(AssertionError, match="invalid ownership metadata"):
        installed.run("install", "other", str(CHART))
    with pytest.raises(RefusedError):
        installed.api.request("GET", f"{SECRETS}/other-modelcache-agent-tls")
