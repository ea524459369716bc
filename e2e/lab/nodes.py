"""Starts and stops the lab's nodes, and looks into them from outside."""

import shutil
import sys
from pathlib import Path

from e2e.lab import cgroups, disks, network, node_init
from e2e.lab.commands import LabError, wait_until
from e2e.lab.node_files import NodePlan
from e2e.lab.processes import Processes, start_ticks
from e2e.lab.settings import POD_RANGE, REPOSITORY, Settings
from e2e.lab.tools import KUBERNETES, installed

END_TIMEOUT_S = 30.0  # a container that has mapped gigabytes takes a while to be torn down


def start(
    settings: Settings, processes: Processes, index: int, image_store: Path, disk_bytes: int
) -> None:
    """Start one node; returns before it is ready."""
    plan = plan_of(settings, index, image_store, disk_bytes)
    own = settings.node_directory(index)
    own.mkdir(exist_ok=True)
    (own / "plan.json").write_text(plan.to_json(), encoding="utf-8")
    cgroups.create(settings.node_cgroup(index))
    processes.start(
        process_name(settings, index),
        [
            *network.inside(settings.node_netns(index)),
            *("unshare", "--mount", "--propagation", "private", "--pid", "--fork"),
            *("--kill-child", "--mount-proc"),
            *("env", f"--chdir={REPOSITORY}", sys.executable, "-m", "e2e.lab.node_init"),
            own / "plan.json",
        ],
    )


def process_name(settings: Settings, index: int) -> str:
    return f"node-{settings.node_name(index)}"


def plan_of(settings: Settings, index: int, image_store: Path, disk_bytes: int) -> NodePlan:
    """What the node's first process is told."""
    name, pki = settings.node_name(index), settings.pki
    return NodePlan(
        name=name,
        address=settings.node_address(index),
        pod_range=settings.pod_range(index),
        cgroup=settings.node_cgroup(index),
        directory=str(settings.node_directory(index)),
        logs=str(settings.logs),
        binaries=str(installed(KUBERNETES)),
        kubeconfig=str(pki / f"{name}.kubeconfig"),
        proxy_kubeconfig=str(pki / "proxy.kubeconfig"),
        authority=str(pki / "ca.crt"),
        serving_certificate=str(pki / f"kubelet-{name}.crt"),
        serving_key=str(pki / f"kubelet-{name}.key"),
        cluster_range=POD_RANGE,
        image_store=str(image_store),
        disk_bytes=disk_bytes,
    )


def stop(settings: Settings, processes: Processes, index: int) -> None:
    """Cut a node's power: every process on it is gone when this returns, its disks are kept."""
    name = process_name(settings, index)
    if processes.is_running(name):
        first = first_process(processes, name)
        began = start_ticks(first)
        processes.stop(name, kill=True)
        wait_until(
            lambda: start_ticks(first) != began,
            f"node {settings.node_name(index)} to end",
            timeout_s=END_TIMEOUT_S,
        )
    cgroups.delete(settings.node_cgroup(index))


def first_process(processes: Processes, name: str) -> int:
    """The pid, as the host counts, of a node's first process.

    Raises:
        LabError: The node is not running.
    """
    outer = processes.record(name).pid
    try:
        children = Path(f"/proc/{outer}/task/{outer}/children").read_text(encoding="ascii").split()
    except FileNotFoundError as error:
        raise LabError(f"{name} is not running") from error
    if not children:
        raise LabError(f"{name} has no process of its own yet")
    return int(children[0])


def wipe_models(settings: Settings, index: int) -> None:
    """Replace a stopped node's disk for models by an empty one."""
    image = settings.node_directory(index) / disks.IMAGE_NAME
    image.unlink(missing_ok=True)
    shutil.rmtree(image.with_suffix(""), ignore_errors=True)


def wipe(settings: Settings, index: int) -> None:
    """Forget everything on a stopped node: it comes back as a new machine of the same name."""
    shutil.rmtree(settings.node_directory(index))


def mount_points() -> tuple[str, ...]:
    """Directories of the host over which nodes mount their own."""
    return node_init.MOUNT_POINTS
