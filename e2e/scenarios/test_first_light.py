"""The main job, whole: chart, ModelCache, pods on every node that read the right bytes."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from e2e.cluster import Cluster
from e2e.lab.cluster import running
from e2e.models import Model, make_model

pytestmark = pytest.mark.timeout(1200)

REPOSITORY = Path(__file__).parents[2]
TENANT = "first-light"
PATIENCE_S = 300.0
READ_ALL = (
    "import hashlib, pathlib, json;"
    "root = pathlib.Path('/model');"
    "print(json.dumps({p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()"
    " for p in root.rglob('*') if p.is_file()}))"
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running() as found:
        yield found


@pytest.fixture(scope="module")
def model(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("model")
    made = make_model(folder, seed=1, weight_bytes=256 << 20)
    cluster.store.upload("first-light", "model", folder, made)
    return made


@pytest.fixture(scope="module")
def installed(cluster: Cluster, model: Model) -> Iterator[Cluster]:
    repository, _, tag = cluster.image.rpartition(":")
    cluster.helm(
        *("upgrade", "--install", "modelcache", str(REPOSITORY / "charts" / "modelcache")),
        *("--namespace", "modelcache", "--create-namespace", "--wait", "--timeout", "5m"),
        *("--set", f"image.repository={repository},image.tag={tag}"),
        *("--set", f"network.allowedRanges={{{urlsplit(cluster.store.url).hostname}/32}}"),
    )
    cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": TENANT}},
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "store", "namespace": TENANT},
            "stringData": {
                "AWS_ACCESS_KEY_ID": cluster.store.credentials.access_key,
                "AWS_SECRET_ACCESS_KEY": cluster.store.credentials.secret_key,
            },
        },
        {
            "apiVersion": "modelcache.io/v1alpha1",
            "kind": "ModelCache",
            "metadata": {"name": "model", "namespace": TENANT},
            "spec": {
                "source": {
                    "uri": "s3://first-light/model",
                    "endpoint": cluster.store.url,
                    "region": cluster.store.region,
                    "credentials": {"secretRef": {"name": "store"}},
                },
            },
        },
    )
    yield cluster
    cluster.kubectl("delete", "namespace", TENANT, "--wait=true")
    cluster.helm("uninstall", "modelcache", "--namespace", "modelcache", "--wait")


def test_a_model_cache_becomes_ready_on_every_node(installed: Cluster) -> None:
    installed.kubectl(
        *("wait", "modelcache/model", "--namespace", TENANT),
        *("--for=condition=Ready", f"--timeout={PATIENCE_S:.0f}s"),
        timeout_s=PATIENCE_S + 10,
    )
    status = installed.get("modelcache", "model", TENANT)["status"]
    assert isinstance(status, dict)
    assert status["nodes"]["ready"] == len(installed.node_names())


def test_pods_on_every_node_read_every_file(installed: Cluster, model: Model) -> None:
    for node in installed.node_names():
        installed.apply(_reader(installed, node))
    for node in installed.node_names():
        found = json.loads(_log_of(installed, f"reader-{node}"))
        assert found == {path: facts.sha256 for path, facts in model.items()}, node


def _reader(cluster: Cluster, node: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"reader-{node}", "namespace": TENANT},
        "spec": {
            "restartPolicy": "Never",
            "nodeSelector": {"kubernetes.io/hostname": node},
            "automountServiceAccountToken": False,
            "securityContext": {"runAsUser": 1000},
            "containers": [
                {
                    "name": "reader",
                    "image": cluster.image,
                    "command": ["python3", "-c", READ_ALL],
                    "volumeMounts": [{"name": "model", "mountPath": "/model"}],
                }
            ],
            "volumes": [
                {
                    "name": "model",
                    "csi": {
                        "driver": "csi.modelcache.io",
                        "readOnly": True,
                        "volumeAttributes": {"modelCache": "model"},
                    },
                }
            ],
        },
    }


def _log_of(cluster: Cluster, pod: str) -> str:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        status = cluster.get("pod", pod, TENANT)["status"]
        assert isinstance(status, dict)
        if status["phase"] == "Succeeded":
            return cluster.kubectl("logs", pod, "--namespace", TENANT)
        assert status["phase"] != "Failed", cluster.kubectl("logs", pod, "--namespace", TENANT)
        assert time.monotonic() < deadline, status
        time.sleep(0.5)
