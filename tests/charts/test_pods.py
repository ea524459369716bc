"""What the pods of each part look like: who is privileged, who sees which part of the node."""

import pytest

from support.charts import Chart, Object, Rendering

PARTS = ("agent", "csi", "keeper", "operator")
ALL = (*PARTS, "test")


def container(rendered: Rendering, part: str) -> Object:
    [only] = rendered.pod_specs()[part]["containers"]
    return only


def host_paths(rendered: Rendering, part: str) -> dict[str, str]:
    volumes = rendered.pod_specs()[part]["volumes"]
    return {v["name"]: v["hostPath"]["path"] for v in volumes if "hostPath" in v}


def mount(rendered: Rendering, part: str, name: str) -> Object:
    [found] = [m for m in container(rendered, part)["volumeMounts"] if m["name"] == name]
    return found


@pytest.mark.parametrize("part", ALL)
def test_every_container_says_what_it_needs(rendered: Rendering, part: str) -> None:
    resources = container(rendered, part)["resources"]
    assert set(resources["requests"]) >= {"cpu", "memory"}
    assert "memory" in resources["limits"]


@pytest.mark.parametrize("part", ALL)
def test_all_run_one_image(chart: Chart, part: str) -> None:
    rendered = chart.render(image={"repository": "registry.example/mc", "tag": "9"})
    assert container(rendered, part)["image"] == "registry.example/mc:9"


def test_a_digest_wins_over_a_tag(chart: Chart) -> None:
    digest = "sha256:" + "0" * 64
    rendered = chart.render(image={"repository": "r/mc", "tag": "9", "digest": digest})
    assert container(rendered, "agent")["image"] == f"r/mc@{digest}"


@pytest.mark.parametrize("part", ["agent", "operator", "test"])
def test_all_but_the_plugin_are_unprivileged(rendered: Rendering, part: str) -> None:
    security = container(rendered, part)["securityContext"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert not security.get("privileged")


@pytest.mark.parametrize("part", ALL)
def test_no_root_file_system_is_writable_and_system_calls_are_filtered(
    rendered: Rendering, part: str
) -> None:
    pod = rendered.pod_specs()[part]
    assert container(rendered, part)["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod.get("hostPID")
    assert not pod.get("hostIPC")


@pytest.mark.parametrize("part", ["operator", "test"])
def test_who_needs_nothing_of_the_node_is_not_root_and_gets_nothing_of_it(
    rendered: Rendering, part: str
) -> None:
    pod = rendered.pod_specs()[part]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert not pod.get("hostNetwork")
    assert not host_paths(rendered, part)


def test_the_agent_sees_the_store_and_its_socket_only(chart: Chart) -> None:
    rendered = chart.render(node={"dataDir": "/mnt/nvme0/models", "socketDir": "/run/mc"})
    assert host_paths(rendered, "agent") == {"data": "/mnt/nvme0/models", "socket": "/run/mc"}
    args = container(rendered, "agent")["args"]
    assert "--data-dir=/mnt/nvme0/models" in args
    assert "--socket=/run/mc/agent.sock" in args


def test_the_plugin_shares_its_mounts_with_the_node_and_cannot_write_the_store(
    chart: Chart,
) -> None:
    rendered = chart.render(node={"kubeletRoot": "/var/lib/k0s/kubelet"})
    assert host_paths(rendered, "csi") == {
        "kubelet": "/var/lib/k0s/kubelet",
        "data": "/var/lib/modelcache",
        "socket": "/run/modelcache",
    }
    assert container(rendered, "csi")["securityContext"]["privileged"] is True
    kubelet = mount(rendered, "csi", "kubelet")
    assert kubelet["mountPath"] == "/var/lib/k0s/kubelet"
    assert kubelet["mountPropagation"] == "Bidirectional"
    data = mount(rendered, "csi", "data")
    assert data["readOnly"] is True
    assert data["mountPropagation"] == "HostToContainer"
    args = container(rendered, "csi")["args"]
    assert "--kubelet-root=/var/lib/k0s/kubelet" in args
    assert "--registration-dir=/var/lib/k0s/kubelet/plugins_registry" in args


@pytest.mark.parametrize("part", PARTS)
def test_a_supervisor_is_the_first_process(rendered: Rendering, part: str) -> None:
    assert container(rendered, part)["command"] == ["modelcache-supervise", "--"]


@pytest.mark.parametrize("part", ["agent", "csi", "operator"])
def test_health_is_asked_where_it_is_answered(chart: Chart, part: str) -> None:
    ports = {"health": 7999} | ({"peer": 7001, "job": 7002} if part == "agent" else {})
    only = container(chart.render(**{part: {"ports": ports}}), part)
    declared = {port["name"]: port["containerPort"] for port in only["ports"]}
    assert declared["health"] == 7999
    assert any("7999" in argument for argument in only["args"])
    for probe in ("readinessProbe", "livenessProbe"):
        assert only[probe]["httpGet"]["port"] == "health"


@pytest.mark.parametrize("part", ["agent", "csi"])
def test_a_node_part_runs_on_every_linux_node_and_is_not_evicted(
    rendered: Rendering, part: str
) -> None:
    pod = rendered.pod_specs()[part]
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["priorityClassName"] == "system-node-critical"
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux"}


def test_there_is_never_a_second_operator(rendered: Rendering) -> None:
    spec = rendered.one("Deployment")["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize(("host_network", "policies"), [(True, 2), (False, 3)])
def test_in_the_pod_network_a_policy_guards_the_agent(
    chart: Chart, host_network: bool, policies: int
) -> None:
    rendered = chart.render(agent={"hostNetwork": host_network})
    assert rendered.pod_specs()["agent"]["hostNetwork"] is host_network
    assert len(rendered.all("NetworkPolicy")) == policies
    assert all(p["spec"]["policyTypes"] == ["Ingress"] for p in rendered.all("NetworkPolicy"))


def test_a_job_reaches_the_agent_of_its_own_node(rendered: Rendering) -> None:
    service = rendered.one("Service")["spec"]
    assert service["type"] == "ClusterIP"
    assert service["internalTrafficPolicy"] == "Local"
    labels = rendered.one("DaemonSet", "-agent")["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    [port] = service["ports"]
    assert (port["port"], port["targetPort"]) == (7441, "job")


def test_a_keeper_is_left_alone_or_replaced_by_one_that_has_its_mounts(chart: Chart) -> None:
    def strategy(**values: str) -> Object:
        sets = chart.render(keeper=values).all("DaemonSet")
        [keeper] = [one for one in sets if one["metadata"]["name"].endswith("-keeper")]
        found: Object = keeper["spec"]["updateStrategy"]
        return found

    assert strategy() == {"type": "OnDelete"}
    handed_over = strategy(updateStrategy="HandOver")
    assert handed_over["type"] == "RollingUpdate"
    assert handed_over["rollingUpdate"] == {"maxSurge": "10%", "maxUnavailable": 0}


def test_a_keeper_is_ready_once_it_serves(rendered: Rendering) -> None:
    socket = f"--socket={host_paths(rendered, 'keeper')['socket']}/keeper.sock"
    keeper = container(rendered, "keeper")
    assert keeper["readinessProbe"]["exec"]["command"] == ["modelcache-keeper-ready", socket]
    assert socket in keeper["args"]
