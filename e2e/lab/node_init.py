"""The first process of a node, inside its namespaces: mounts, then containerd, kube-proxy, kubelet.

Started as `python3 -m e2e.lab.node_init PLAN`. It restarts a daemon that ends, and collects
orphans. When it is killed, the kernel ends everything else on the node: a power cut.
"""

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

from e2e.lab import disks, image_store, node_files
from e2e.lab.commands import output, run, wait_until
from e2e.lab.node_files import NodePlan

RESTART_PAUSE_S = 1.0  # arbitrary: a daemon that dies at once must not fill the machine
CONTAINERD_TIMEOUT_S = 60.0
CTR_VERSION = ("ctr", "--address", node_files.CONTAINERD_SOCKET, "version")
IMAGES_DIRECTORY = "/var/lib/containerd"
HOST_DIRECTORIES = (
    IMAGES_DIRECTORY,
    "/var/lib/kubelet",
    "/var/log/pods",
    "/var/log/containers",
    "/etc/cni/net.d",
)
DATA_DIRECTORY = "/var/lib/modelcache"
NETWORK_STATE = "/var/lib/cni"  # dies with the node: addresses of pods that are gone
MOUNT_POINTS = (*HOST_DIRECTORIES, DATA_DIRECTORY, NETWORK_STATE)


def main() -> None:
    """Bring the node up, then keep it up."""
    plan = NodePlan.from_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    _mount_all(plan)
    commands = _write_configuration(plan)
    daemons = {"containerd": _start(plan, "containerd", commands["containerd"])}
    wait_until(
        lambda: run(CTR_VERSION, check=False).returncode == 0,
        "containerd",
        timeout_s=CONTAINERD_TIMEOUT_S,
    )
    for name in ("kube-proxy", "kubelet"):
        daemons[name] = _start(plan, name, commands[name])
    _keep_running(plan, daemons, commands)


def _mount_all(plan: NodePlan) -> None:
    own = Path(plan.directory)
    for target in HOST_DIRECTORIES:
        source = own / target.strip("/").replace("/", "-")
        if target == IMAGES_DIRECTORY and not source.exists():
            image_store.copy(Path(plan.image_store), source)
        source.mkdir(parents=True, exist_ok=True)
        run(["mount", "--bind", source, target])
    disks.attach(own / disks.IMAGE_NAME, Path(DATA_DIRECTORY), plan.disk_bytes)
    run(["mount", "-t", "tmpfs", "run", "/run"])
    for directory in ("containerd", "netns", "lock"):
        Path("/run", directory).mkdir()
    run(["mount", "-t", "tmpfs", "cni", NETWORK_STATE])
    Path(node_files.BOOT_ID_FILE).write_text(f"{uuid.uuid4()}\n", encoding="ascii")
    run(["mount", "--bind", node_files.BOOT_ID_FILE, node_files.BOOT_ID])
    run(["mount", "--make-rshared", "/"])  # what mountPropagation: Bidirectional needs


def _write_configuration(plan: NodePlan) -> dict[str, list[str]]:
    """Write every file; return the command line of each daemon."""
    own = Path(plan.directory)
    resolver = own / "resolv.conf"
    files = {
        own / "containerd.toml": node_files.containerd_config(own / "container.json"),
        own / "container.json": node_files.container_spec(output(["ctr", "oci", "spec"])),
        own / "kubelet.json": node_files.kubelet_config(plan, resolver),
        own / "kube-proxy.json": node_files.proxy_config(plan),
        Path("/etc/cni/net.d/10-pods.conflist"): node_files.pod_network(plan),
        resolver: "# no names are resolved in the lab\n",
    }
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    kubelet = [
        f"{plan.binaries}/kubelet",
        f"--config={own / 'kubelet.json'}",
        f"--kubeconfig={plan.kubeconfig}",
        f"--hostname-override={plan.name}",
        f"--node-ip={plan.address}",
        "--root-dir=/var/lib/kubelet",
    ]
    return {
        "containerd": ["containerd", "--config", str(own / "containerd.toml")],
        "kube-proxy": [f"{plan.binaries}/kube-proxy", f"--config={own / 'kube-proxy.json'}"],
        "kubelet": kubelet,
    }


def _start(plan: NodePlan, name: str, argv: list[str]) -> int:
    with Path(plan.logs, f"{plan.name}-{name}.log").open("ab") as log:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
    process.returncode = 0  # collected below, with the orphans
    return process.pid


def _keep_running(plan: NodePlan, daemons: dict[str, int], commands: dict[str, list[str]]) -> None:
    while True:
        pid, _status = os.wait()
        for name, daemon in daemons.items():
            if daemon == pid:
                time.sleep(RESTART_PAUSE_S)
                daemons[name] = _start(plan, name, commands[name])
                break


if __name__ == "__main__":
    main()
