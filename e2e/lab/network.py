"""The lab's network: namespaces joined by a bridge that lies in the control plane's own namespace.

Nothing is added to the host's namespace. Who wants to reach the lab enters one of its namespaces.
"""

import os
import signal
from pathlib import Path

from e2e.lab.commands import LabError, output, run, wait_until
from e2e.lab.settings import CONTROL_PLANE_ADDRESS, S3_ADDRESS, Settings, netns_path

BRIDGE = "br0"
KILL_TIMEOUT_S = 10.0
MOUNTS = Path("/proc/self/mountinfo")
FORWARDING = {
    "net/ipv4/ip_forward": "1",
    # a pod's Service answered by a pod on the same bridge must come back through the rewriting
    "net/bridge/bridge-nf-call-iptables": "1",
}


def inside(netns: str) -> list[str]:
    """The words that run a command in a namespace.

    Not `ip netns exec`: that mounts /sys anew and hides the control groups.
    """
    return ["nsenter", f"--net={netns_path(netns)}"]


def create(settings: Settings, nodes: int) -> None:
    """Make the namespaces, the bridge, and routes between all nodes' pods."""
    hub = settings.control_plane_netns
    _namespace(hub)
    _ip(hub, "link", "add", BRIDGE, "type", "bridge")
    _ip(hub, "addr", "add", f"{CONTROL_PLANE_ADDRESS}/24", "dev", BRIDGE)
    _ip(hub, "link", "set", BRIDGE, "up")
    # no route leads out: say so every time, so that whoever looks up a name fails at once
    _sysctl(hub, {"net/ipv4/ip_forward": "1", "net/ipv4/icmp_ratelimit": "0"})
    _join(hub, settings.s3_netns, S3_ADDRESS)
    members = range(1, nodes + 1)
    for index in members:
        _join(hub, settings.node_netns(index), settings.node_address(index))
        _sysctl(settings.node_netns(index), FORWARDING)
    for index in members:
        others = [settings.node_netns(other) for other in members if other != index]
        for netns in [hub, settings.s3_netns, *others]:
            route = [settings.pod_range(index), "via", settings.node_address(index)]
            _ip(netns, "route", "add", *route)


def existing(name: str) -> list[str]:
    """The lab's namespaces that are there, from this run or a crashed one."""
    directory = netns_path("")
    if not directory.is_dir():
        return []
    return sorted(entry.name for entry in directory.iterdir() if entry.name.startswith(f"{name}-"))


def delete(name: str) -> None:
    """Kill what still runs in the lab's namespaces, and remove them."""
    for netns in existing(name):
        if _kill_all(netns):
            wait_until(
                lambda netns=netns: not _kill_all(netns),  # type: ignore[misc]
                f"the processes in {netns} to die",
                timeout_s=KILL_TIMEOUT_S,
            )
        run(["ip", "netns", "del", netns])
    _remove_empty_holder(netns_path(""))


def _kill_all(netns: str) -> bool:
    """Kill every process in a namespace; whether there was one."""
    pids = [int(pid) for pid in output(["ip", "netns", "pids", netns]).split()]
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return bool(pids)


def _remove_empty_holder(directory: Path) -> None:
    """`ip netns add` mounts its directory over itself; undo that once nobody uses it."""
    if not directory.is_dir() or any(directory.iterdir()):
        return
    mounted = [line.split()[4] for line in MOUNTS.read_text(encoding="utf-8").splitlines()]
    if str(directory) in mounted:  # os.path.ismount does not see a mount of the same device
        run(["umount", directory])
    directory.rmdir()


def _namespace(netns: str) -> None:
    if netns_path(netns).exists():
        raise LabError(f"the network namespace {netns} is there already; run `down` first")
    run(["ip", "netns", "add", netns])
    _ip(netns, "link", "set", "lo", "up")


def _join(hub: str, netns: str, address: str) -> None:
    """Add a namespace with one interface on the hub's bridge."""
    _namespace(netns)
    port = f"v-{netns}"
    _ip(hub, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", netns)
    _ip(hub, "link", "set", port, "master", BRIDGE, "up")
    _ip(netns, "link", "set", "eth0", "up")
    _ip(netns, "addr", "add", f"{address}/24", "dev", "eth0")
    _ip(netns, "route", "add", "default", "via", CONTROL_PLANE_ADDRESS)


def _ip(netns: str, *words: str) -> None:
    run(["ip", "-n", netns, *words])


def _sysctl(netns: str, values: dict[str, str]) -> None:
    for key, value in values.items():
        script = f"[ ! -e /proc/sys/{key} ] || echo {value} > /proc/sys/{key}"
        run([*inside(netns), "sh", "-c", script])
