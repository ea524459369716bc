"""Access: tenants share bytes and nothing else; each has credentials and a `restricted` namespace.

The model's objects state their sha256, so that equal files are one blob whoever reads them.
"""

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from e2e.lab.commands import wait_until
from e2e.lab.s3_client import Credentials
from e2e.lab.s3_server import new_credentials
from e2e.models import Model, make_model
from e2e.pods import container, inline, mount, pod
from e2e.release import NAMESPACE, Release
from e2e.tenants import Tenant

BUCKET, PREFIX = "tenancy", "shared"
SIZE_MIB = 192
NAME = "model"
#: A proof holds this long here: short enough to wait for, long enough for a slow machine's Jobs.
PROOF_MAX_AGE_S = 120
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
#: Of each file: listing and HEADs, a byte, and four ranges of 64 KiB with their framing.
PROOF_BYTES_PER_FILE = 400 << 10


@dataclass(frozen=True)
class Shared:
    """The model that all want."""

    uri: str
    files: Model

    @property
    def size_bytes(self) -> int:
        return sum(facts.size_bytes for facts in self.files.values())


@pytest.fixture(scope="module")
def strict(release: Release) -> Iterator[Release]:
    """The chart, with proofs that run out soon."""
    release.install(f"access.proofMaxAgeSeconds={PROOF_MAX_AGE_S}")
    yield release
    release.install()


@pytest.fixture(scope="module")
def shared(strict: Release, tmp_path_factory: pytest.TempPathFactory) -> Shared:
    folder = tmp_path_factory.mktemp("shared")
    files = make_model(folder, seed=77, weight_bytes=SIZE_MIB << 20)
    return Shared(
        strict.cluster.store.upload(BUCKET, PREFIX, folder, files, states_sha256=True), files
    )


@pytest.fixture(scope="module")
def users() -> dict[str, Credentials]:
    return {name: new_credentials() for name in ("first", "second", "third")}


@pytest.fixture(scope="module")
def people(
    new_tenant: Callable[..., Tenant], shared: Shared, users: dict[str, Credentials]
) -> dict[str, Tenant]:
    """Three tenants; the store lets the first two read the model."""
    found = {}
    for name, user in users.items():
        tenant = new_tenant(f"tenancy-{name}", **RESTRICTED)
        keys = {"AWS_ACCESS_KEY_ID": user.access_key, "AWS_SECRET_ACCESS_KEY": user.secret_key}
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "own", "namespace": tenant.namespace},
            "stringData": keys,
        }
        tenant.cluster.apply(secret)
        found[name] = tenant
    store = found["first"].cluster.store
    for user in users.values():
        store.client().create_user(user)
    store.let_read(BUCKET, [users["first"], users["second"]])
    return found


def test_who_may_not_read_the_source_is_refused_before_its_bytes_are_cached(
    people: dict[str, Tenant], shared: Shared, nodes: list[str]
) -> None:
    third = people["third"]
    declare(third, shared)
    third.start(reader(third, "early", nodes[0]))
    assert third.wait_event("early", "AccessDenied")["type"] == "Warning"
    assert refused(third) == "AccessDenied"


def test_the_first_tenant_brings_it(people: dict[str, Tenant], shared: Shared) -> None:
    declare(people["first"], shared)
    people["first"].wait_ready(NAME)


def test_the_second_mounts_it_for_no_more_than_its_proof(
    people: dict[str, Tenant], shared: Shared, nodes: list[str]
) -> None:
    second = people["second"]
    before = second.cluster.store.sent_bytes()
    declare(second, shared)
    second.wait_ready(NAME)
    names = {node: f"reader-{node}" for node in nodes}
    second.start(*(reader(second, name, node) for node, name in names.items()))
    second.wait_finished(*names.values())
    sent_bytes = second.cluster.store.sent_bytes() - before
    per_node = PROOF_BYTES_PER_FILE * len(shared.files)
    assert sent_bytes < len(nodes) * per_node < shared.size_bytes
    sums = {path: facts.sha256 for path, facts in shared.files.items()}
    for name in names.values():
        assert second.report(name)["sums"] == {"/model": sums}


def test_who_may_not_read_the_source_is_refused_after_its_bytes_are_cached(
    people: dict[str, Tenant], strict: Release, nodes: list[str]
) -> None:
    third, revision = people["third"], revision_of(people["first"])
    third.start(
        reader(third, "late", nodes[0]), reader(third, "guesses", nodes[1], revision=revision)
    )
    third.wait_event("late", "AccessDenied")
    third.wait_event("guesses", "InvalidRequest", f"has no revision {revision}")
    for name in ("late", "guesses"):
        assert third.pod(name)["status"]["phase"] == "Pending"
    assert refused(third) == "AccessDenied"
    assert "late" in pods_refused(strict, "agent", nodes[0])
    assert "guesses" in pods_refused(strict, "csi", nodes[1])


def test_who_forges_its_own_job_gains_nothing(
    people: dict[str, Tenant], strict: Release, shared: Shared, nodes: list[str]
) -> None:
    third = people["third"]
    first = third.cluster.get("modelcache", NAME, people["first"].namespace)
    third.start(
        authority(strict, third),
        forged_job(strict, third, shared, nodes[1], uid=first["metadata"]["uid"]),  # type: ignore[index]
    )

    def ended() -> dict[str, Any] | None:
        statuses = third.pod("forged")["status"].get("containerStatuses") or [{}]
        found: dict[str, Any] | None = statuses[0].get("state", {}).get("terminated")
        return found

    state = wait_until(ended, "the forged Job's end", timeout_s=120, interval_s=1)
    assert state["exitCode"] != 0
    assert "AccessDenied" in third.logs("forged")
    third.start(reader(third, "after", nodes[1], revision=revision_of(people["first"])))
    third.wait_event("after", "InvalidRequest", "has no revision")
    assert third.pod("after")["status"]["phase"] == "Pending"


def test_withdrawn_access_stops_new_mounts_and_no_running_pod(
    people: dict[str, Tenant], users: dict[str, Credentials], nodes: list[str]
) -> None:
    first, second = people["first"], people["second"]
    second.start(
        pod(
            "goes-on",
            [container("c", second.cluster.image, ("keep_reading", "/model"), [mount("model")])],
            [inline("model", NAME)],
            node=nodes[0],
        )
    )
    second.wait_running("goes-on")
    first.cluster.store.let_read(BUCKET, [users["first"]])
    wait_until(
        lambda: refused(second) == "AccessDenied",
        "a condition that says so",
        timeout_s=3 * PROOF_MAX_AGE_S,
        interval_s=2,
    )
    second.start(reader(second, "too-late", nodes[0]))
    second.wait_event("too-late", "AccessDenied")
    assert second.pod("too-late")["status"]["phase"] == "Pending"
    assert second.pod("goes-on")["status"]["phase"] == "Running"
    first.start(reader(first, "still-may", nodes[0]))
    first.wait_finished("still-may")


def pods_refused(release: Release, part: str, node: str) -> set[str]:
    """Pods that the audit log of a part names as refused."""
    lines = release.logs(part, node)
    return {line["pod"] for line in lines if line.get("outcome") == "refused" and "pod" in line}


def declare(tenant: Tenant, shared: Shared) -> None:
    tenant.declare(NAME, shared.uri, credentials={"secretRef": {"name": "own"}})


def reader(tenant: Tenant, name: str, node: str, **attributes: str) -> dict[str, Any]:
    words = ("read_all", "/model")
    return pod(
        name,
        [container("reader", tenant.cluster.image, words, [mount("model")])],
        [inline("model", NAME, **attributes)],
        node=node,
    )


def revision_of(tenant: Tenant) -> str:
    return str(tenant.status(NAME)["revision"])


def refused(tenant: Tenant) -> str:
    """Why a ModelCache is not ready; empty while it is."""
    for condition in tenant.status(NAME).get("conditions", ()):
        if condition["type"] == "Ready" and condition["status"] != "True":
            return str(condition["reason"])
    return ""


def authority(strict: Release, tenant: Tenant) -> dict[str, Any]:
    """Who signed the agents' certificate: no secret, every Job has it."""
    words = ("get", "secret", "modelcache-agent-tls", "--namespace", NAMESPACE)
    encoded = strict.cluster.kubectl(*words, "--output", "jsonpath={.data['ca\\.crt']}")
    pem = base64.b64decode(encoded).decode()
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "agent-ca"},
        "data": {"ca.crt": pem},
    }


def forged_job(
    strict: Release, tenant: Tenant, shared: Shared, node: str, *, uid: str
) -> dict[str, Any]:
    """A pod that does what a prefetch Job does, in another tenant's name."""
    service: dict[str, Any] = strict.cluster.get("service", "modelcache-agent", NAMESPACE)
    address = f"https://{service['spec']['clusterIP']}:7441"
    store = strict.cluster.store
    made = pod("forged", [container("c", strict.cluster.image, ("read_all",), [])], [], node=node)
    made["spec"]["containers"][0] |= {
        "command": [
            *("modelcache", "prefetch", shared.uri, "--endpoint", store.url),
            *("--region", store.region, "--credentials-dir", "/own", "--give-up", "20"),
            *("--agent", address, "--token-file", "/token/token", "--agent-ca-file", "/ca/ca.crt"),
            *("--agent-server-name", "agent.modelcache.io", "--model-cache", NAME),
            *("--model-cache-uid", uid),
        ],
        "volumeMounts": [
            {"name": name, "mountPath": f"/{name}", "readOnly": True}
            for name in ("token", "ca", "own")
        ],
    }
    token = {"serviceAccountToken": {"audience": "agent.modelcache.io", "path": "token"}}
    made["spec"]["volumes"] = [
        {"name": "token", "projected": {"sources": [token]}},
        {"name": "ca", "configMap": {"name": "agent-ca"}},
        {"name": "own", "secret": {"secretName": "own"}},
    ]
    return made
