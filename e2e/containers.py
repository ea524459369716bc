"""Ends whole containers of the release, as a node does: by their first process, or their limit."""

from contextlib import suppress
from typing import Any

from e2e.cluster import container_ids
from e2e.lab.commands import LabError, wait_until
from e2e.release import NAMESPACE, Release

SUPERVISOR = r"modelcache-supervise"
#: The kubelet's back-off for a container that ended a few times, and its start.
AGAIN_TIMEOUT_S = 120.0
#: More than any part may use; `x` because pages of zeros are not taken.
EAT = "b'x' * (8 << 30)"
#: oom_score_adj(5): to be killed before all others. Raising it needs no privilege.
FIRST_TO_BE_KILLED = 1000


def kill_container(release: Release, part: str, node: str) -> None:
    """Kill a container's first process, hence the container, and wait for the next one."""
    pod = release.pods(part)[node]
    before = _status(release, pod)["restartCount"]
    assert release.cluster.kill_in_pod(NAMESPACE, pod, SUPERVISOR)
    _wait_again(release, pod, before)


def exhaust_memory(release: Release, part: str, node: str) -> None:
    """Use up a container's memory until the kernel has ended it, and wait for the next one.

    Raises:
        LabError: The kernel ended something else, or Kubernetes saw another reason.
    """
    pod = release.pods(part)[node]
    before = _status(release, pod)["restartCount"]
    _prefer(release, pod, node)
    where = ("--namespace", NAMESPACE, pod, "--container", part)
    with suppress(LabError):  # it goes with the container
        release.cluster.kubectl("exec", *where, "--", "python3", "-c", EAT)
    _wait_again(release, pod, before)
    ended = _status(release, pod).get("lastState", {}).get("terminated", {})
    if ended.get("reason") != "OOMKilled":
        raise LabError(f"{part} on {node} was to run out of memory, and ended so: {ended}")


def _prefer(release: Release, pod: str, node: str) -> None:
    """Have everything in a pod's containers killed before what is started there from now on.

    The supervisor's next workers inherit it; a process that ended meanwhile is no matter.
    """
    found: Any = release.cluster.get("pod", pod, NAMESPACE)
    ids = container_ids(found)
    for process in release.cluster.processes(node):
        if any(name in process.cgroup for name in ids):
            adjust = f"echo {FIRST_TO_BE_KILLED} > /proc/{process.pid}/oom_score_adj || true"
            release.cluster.on_node(node, "sh", "-c", adjust)


def _status(release: Release, pod: str) -> dict[str, Any]:
    found: Any = release.cluster.get("pod", pod, NAMESPACE)
    [status] = found["status"]["containerStatuses"]
    return dict(status)


def _wait_again(release: Release, pod: str, before: int) -> None:
    wait_until(
        lambda: _status(release, pod)["restartCount"] > before,
        f"{pod} again",
        timeout_s=AGAIN_TIMEOUT_S,
    )
