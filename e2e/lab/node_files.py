"""Text of the files a node reads: containerd, kubelet, pod network. Pure."""

import json
from dataclasses import dataclass
from pathlib import Path

from e2e.lab.settings import DNS_ADDRESS

PAUSE_IMAGE = "localhost/pause:1"
CNI_PLUGINS = "/usr/lib/cni"  # where Debian puts them
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
#: What a node and its containers see as the kernel's boot id: new whenever the node starts.
BOOT_ID = "/proc/sys/kernel/random/boot_id"
BOOT_ID_FILE = "/run/boot-id"


@dataclass(frozen=True)
class NodePlan:
    """All that the first process of a node must know; written for it as JSON."""

    name: str
    address: str
    pod_range: str
    cgroup: str
    directory: str
    logs: str
    binaries: str
    kubeconfig: str
    proxy_kubeconfig: str
    authority: str
    serving_certificate: str
    serving_key: str
    cluster_range: str
    image_store: str
    disk_bytes: int

    def to_json(self) -> str:
        return json.dumps(self.__dict__)

    @classmethod
    def from_json(cls, text: str) -> "NodePlan":
        return cls(**json.loads(text))


def containerd_config(container_spec: Path) -> str:
    return f"""\
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  disable_apparmor = true
  # a host without CAP_SYS_RESOURCE may not lower oom_score_adj: runc dies without this
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      base_runtime_spec = "{container_spec}"
"""


def container_spec(default: str) -> str:
    """Every container's OCI specification: containerd's own, with the node's boot id in place.

    The hook runs when the container's mounts are made and the node's files are still there to be
    seen; its working directory is the container's root.
    """
    spec = json.loads(default)
    words = ["mount", "--bind", BOOT_ID_FILE, BOOT_ID.removeprefix("/")]
    spec["hooks"] = {"createContainer": [{"path": "/bin/mount", "args": words}]}
    return json.dumps(spec)


def pod_network(plan: NodePlan) -> str:
    """A bridge per node; routes between the nodes' ranges are the lab's own."""
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "hairpinMode": True,
        "ipMasq": False,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": plan.pod_range}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, ports]})


def kubelet_config(plan: NodePlan, resolver: Path) -> str:
    """The kubelet as a careful cluster has it: webhook authentication, its own certificate."""
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": plan.authority},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": plan.serving_certificate,
        "tlsPrivateKeyFile": plan.serving_key,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{plan.cgroup}",
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "nodeLeaseDurationSeconds": 20,  # renewed each quarter of it: see the grace in kcm
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": str(resolver),
        "failSwapOn": False,
        "oomScoreAdj": 0,
        # images come from archives alone: none may ever be collected
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"nodefs.available": "1%", "memory.available": "100Mi"},
    }
    return json.dumps(config)


def proxy_config(plan: NodePlan) -> str:
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": plan.proxy_kubeconfig},
        "mode": "iptables",
        "hostnameOverride": plan.name,
        "clusterCIDR": plan.cluster_range,
        "conntrack": {"maxPerCore": 0},  # the limit is the host's, not ours to change
        "oomScoreAdj": 0,
    }
    return json.dumps(config)
