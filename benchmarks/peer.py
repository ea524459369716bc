"""From peers: one node fetches a blob from one peer and from seven, against nginx.

The same movers fetch in all three cases, six chunks at a time, checksums on; nothing shapes the
network. Both sides share the cores: ratios travel to other machines, GB/s do not.
"""

import json
import secrets
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from _flags import Flags, parse_flags, say
from _installing import MissingToolError
from _metering import FailedRunError
from _peer_nodes import KEY, Node, crcs_of, make_blob, nodes_serving
from _processes import cpu_seconds, tree_of
from _reports import Bar, Report, table
from _rounds import alternate, median_of, ratio_of
from _scratch import make_file, memory_directory
from _servers import BUCKET, nginx_store

BARS = [
    Bar("one_peer_vs_nginx", at_least=0.9),
    Bar("seven_peers_vs_one", at_least=1.0),
]
N_PEERS = 7
CLIENT = Path(__file__).with_name("_chunk_client.py")
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Transfer:
    """What one run took, on both sides."""

    seconds: float
    client_cpu_s: float
    server_cpu_s: float
    n_bytes: int

    @property
    def gb_per_s(self) -> float:
        return self.n_bytes / self.seconds / 1e9

    @property
    def client_cpu_s_per_gb(self) -> float:
        return self.client_cpu_s / (self.n_bytes / 1e9)

    @property
    def server_cpu_s_per_gb(self) -> float:
        return self.server_cpu_s / (self.n_bytes / 1e9)


def main() -> None:
    flags = parse_flags(__doc__.partition("\n")[0])
    try:
        _measure(flags).finish(flags)
    except MissingToolError as e:
        sys.exit(str(e))


def _measure(flags: Flags) -> Report:
    n_bytes, rounds = (1 << 30, 3) if flags.quick else (2 << 30, 7)
    report = Report("peer", bars=list(BARS))
    with memory_directory(2 * n_bytes) as directory:
        key_file, target = directory / "cluster-key", directory / "target"
        key_file.write_text(secrets.token_hex(32))
        say("making a blob")
        # Written over by each run: fresh pages of memory can cost more than all else.
        make_file(target, n_bytes)
        data = make_blob(directory / "blobs", n_bytes)
        state, bucket = directory / "server", directory / BUCKET
        state.mkdir()
        bucket.mkdir()
        (bucket / "model").hardlink_to(data)
        orders = {"data": str(target), "n_bytes": n_bytes}
        from_peers = {"blob": KEY, "crcs": crcs_of(data), "key_file": str(key_file), **orders}
        with (
            nginx_store(bucket, state, workers=1) as store,
            nodes_serving(directory / "blobs", key_file, N_PEERS) as nodes,
        ):

            def peers(some: Sequence[Node]) -> Callable[[], Transfer]:
                addresses = [one.address for one in some]
                pids = [one.pid for one in some]
                return lambda: _transfer({**from_peers, "peers": addresses}, pids)

            url = store.object_url("http", "model")
            found = alternate(
                {
                    "nginx": lambda: _transfer({**orders, "url": url}, [store.pid]),
                    "one peer": peers(nodes[:1]),
                    "seven peers": peers(nodes),
                },
                rounds,
            )
    _report(report, found)
    return report


def _transfer(orders: dict[str, object], servers: Sequence[int]) -> Transfer:
    used_before = _cpu_of(servers)
    done = subprocess.run(
        [sys.executable, str(CLIENT)],
        input=json.dumps(orders),
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    if done.returncode:
        raise FailedRunError(f"the client ended with {done.returncode}: {done.stderr[-1000:]}")
    took = json.loads(done.stdout)
    # The first chunk is fetched before the clock starts; its share of the server's time is taken
    # off.
    share = took["n_bytes"] / int(str(orders["n_bytes"]))
    server_cpu_s = (_cpu_of(servers) - used_before) * share
    return Transfer(took["seconds"], took["cpu_seconds"], server_cpu_s, took["n_bytes"])


def _cpu_of(servers: Sequence[int]) -> float:
    return sum(cpu_seconds(tree_of(pid)) for pid in servers)


def _report(report: Report, found: dict[str, list[Transfer]]) -> None:
    rows = []
    for name, runs in found.items():
        prefix = name.replace(" ", "_")
        speed = report.add(f"{prefix}_gb_per_s", median_of(runs, _speed))
        client = report.add(
            f"{prefix}_client_cpu_s_per_gb", median_of(runs, lambda one: one.client_cpu_s_per_gb)
        )
        server = report.add(
            f"{prefix}_server_cpu_s_per_gb", median_of(runs, lambda one: one.server_cpu_s_per_gb)
        )
        rows.append((name, f"{speed:.2f}", f"{client:.2f}", f"{server:.2f}"))
    report.add("one_peer_vs_nginx", ratio_of(found["one peer"], found["nginx"], _speed))
    report.add("seven_peers_vs_one", ratio_of(found["seven peers"], found["one peer"], _speed))
    head = ("from", "GB/s", "client CPU s/GB", "server CPU s/GB")
    report.tables.append(table(head, rows))


def _speed(one: Transfer) -> float:
    return one.gb_per_s


if __name__ == "__main__":
    main()
