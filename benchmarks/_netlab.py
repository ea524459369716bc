"""Nodes on one machine, each with a link of its own: network namespaces, shaped at both ends.

Needs root. Names carry a random part, and everything is removed with the laboratory, whatever
happens inside. Nothing of the machine's own network is touched.
"""

import os
import secrets
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from _installing import MissingToolError

#: What waits before a shaped link, at its full rate. Short: on links this slow a deep queue would
#: make a round trip as long as a chunk, which no network of a cluster has.
QUEUE_S = 0.02
#: Whatever the machine has: BBR would lose a sixth of such a link to retries. On links this small
#: cubic, the default of Linux, is Reno in all but name; here not every machine allows it.
CONGESTION_CONTROL = "reno"
MIN_QUEUE_BYTES = 24 << 10
BURST_BYTES = 16 << 10
#: A virtual link would send up to 64 KiB at once, more than the queue holds.
SEGMENTS_AT_ONCE = 4


@dataclass(frozen=True)
class Host:
    """A namespace with one link to the switch."""

    namespace: str
    address: str
    port_of_switch: str

    def command(self, command: Sequence[str]) -> list[str]:
        """The command, run there."""
        return ["ip", "netns", "exec", self.namespace, *command]


class Lab:
    """A switch and its hosts. Rates are in bytes per second, each way of each link."""

    def __init__(self) -> None:
        self._prefix = f"mcb{secrets.token_hex(2)}"
        self._switch = f"{self._prefix}-switch"
        self._namespaces: list[str] = []

    def open(self) -> None:
        self._add_namespace(self._switch)
        self._in_switch("ip", "link", "add", "br0", "type", "bridge")
        self._in_switch("ip", "link", "set", "br0", "up")

    def close(self) -> None:
        for name in self._namespaces:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)

    def add_host(self, bytes_per_s: float) -> Host:
        """A host whose link has this rate in both directions."""
        number = len(self._namespaces)
        host = Host(
            f"{self._prefix}-{number}", f"10.77.{number // 200}.{number % 200 + 1}", f"p{number}"
        )
        self._add_namespace(host.namespace)
        _run(
            *host.command(
                ["sysctl", "-qw", f"net.ipv4.tcp_congestion_control={CONGESTION_CONTROL}"]
            )
        )
        _run(
            *("ip", "-n", host.namespace, "link", "add", "eth0", "type", "veth"),
            *("peer", "name", host.port_of_switch, "netns", self._switch),
        )
        _run("ip", "-n", host.namespace, "addr", "add", f"{host.address}/16", "dev", "eth0")
        for device in ("lo", "eth0"):
            _run("ip", "-n", host.namespace, "link", "set", device, "up")
        port = host.port_of_switch
        segments = ("gso_max_segs", str(SEGMENTS_AT_ONCE))
        _run("ip", "-n", host.namespace, "link", "set", "eth0", *segments)
        self._in_switch("ip", "link", "set", port, *segments)
        self._in_switch("ip", "link", "set", port, "master", "br0", "up")
        _shape(host.namespace, "eth0", bytes_per_s)
        _shape(self._switch, port, bytes_per_s)
        return host

    def set_uplink(self, host: Host, bytes_per_s: float) -> None:
        """Change what a host may send."""
        _run("tc", "-n", host.namespace, "qdisc", "del", "dev", "eth0", "root")
        _shape(host.namespace, "eth0", bytes_per_s)

    def _add_namespace(self, name: str) -> None:
        _run("ip", "netns", "add", name)
        self._namespaces.append(name)

    def _in_switch(self, *command: str) -> None:
        _run("ip", "netns", "exec", self._switch, *command)


@contextmanager
def network_lab() -> Iterator[Lab]:
    """Raises MissingToolError: not root, or the kernel lacks what it takes."""
    if os.geteuid() != 0:
        raise MissingToolError("network namespaces need root")
    lab = Lab()
    try:
        lab.open()
        yield lab
    finally:
        lab.close()


def machine_cpu_s() -> tuple[float, float]:
    """(busy, all) seconds of all cores since the machine's start."""
    fields = [int(one) for one in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle = fields[3] + fields[4]
    ticks = os.sysconf("SC_CLK_TCK")
    return (sum(fields) - idle) / ticks, sum(fields) / ticks


def await_tcp(host: Host, address: str, port: int, *, timeout_s: float = 60.0) -> None:
    """Return when something listens there, seen from a host."""
    probe = f"import socket; socket.create_connection(({address!r}, {port}), 1)"
    give_up_at = time.monotonic() + timeout_s
    while subprocess.run(
        host.command(["python3", "-c", probe]), check=False, capture_output=True
    ).returncode:
        if time.monotonic() > give_up_at:
            raise MissingToolError(f"nothing listens on {address}:{port}")
        time.sleep(0.05)


def _shape(namespace: str, device: str, bytes_per_s: float) -> None:
    rate = f"{int(bytes_per_s * 8)}bit"
    queue = max(MIN_QUEUE_BYTES, int(bytes_per_s * QUEUE_S))
    tc = ("tc", "-n", namespace)
    # r2q only sets a quantum between classes, of which there is one.
    _run(
        *tc,
        "qdisc",
        "add",
        "dev",
        device,
        "root",
        "handle",
        "1:",
        "htb",
        "default",
        "1",
        "r2q",
        "1000",
    )
    _run(
        *(*tc, "class", "add", "dev", device, "parent", "1:", "classid", "1:1", "htb"),
        *("rate", rate, "ceil", rate, "burst", str(BURST_BYTES), "cburst", str(BURST_BYTES)),
    )
    _run(*tc, "qdisc", "add", "dev", device, "parent", "1:1", "bfifo", "limit", str(queue))


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise MissingToolError(f"{' '.join(command)}: {done.stderr.strip()}")
