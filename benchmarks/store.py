"""An agent over a store of a 1 TB model of which 1 % is missing: ready how soon, in what memory.

Data files are sparse; manifest, journals and database are what they would be. An agent is ready
when it tells over its socket what it holds. Memory is that of all its processes.
"""

import http.client
import json
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from _flags import parse_flags, say
from _processes import cpu_seconds, rss_bytes, tree_of
from _reports import Bar, Report, table
from _rounds import alternate, median_of
from _scratch import disk_directory
from _terabyte import make_store

MODEL_BYTES = 10**12
MISSING_OF = 100
#: After which an agent that does not answer has failed.
START_TIMEOUT_S = 60.0
#: How long memory is watched once it is ready.
WATCHED_S = 2.0
BARS = [Bar("ready_s", at_most=5.0), Bar("peak_rss_mib", at_most=512.0)]


@dataclass(frozen=True)
class Start:
    """What one start of an agent took."""

    ready_s: float
    peak_rss_bytes: int
    cpu_seconds: float


def main() -> None:
    flags = parse_flags(__doc__.partition("\n")[0])
    report = Report("store", bars=list(BARS))
    with disk_directory() as directory:
        say("making the store")
        revision = make_store(directory / "data", MODEL_BYTES, missing_of=MISSING_OF)
        found = alternate(
            {"agent": lambda: _start(directory, revision)}, rounds=3 if flags.quick else 5
        )["agent"]
    ready_s = report.add("ready_s", max(start.ready_s for start in found))
    median_s = report.add("median_ready_s", median_of(found, lambda start: start.ready_s))
    rss = report.add("peak_rss_mib", max(start.peak_rss_bytes for start in found) / 2**20)
    cpu = report.add("cpu_s", median_of(found, lambda start: start.cpu_seconds))
    report.tables.append(
        table(
            ("1 TB, 1 % missing", "ready after s: median", "worst", "CPU s", "peak RSS MiB"),
            [("agent", f"{median_s:.2f}", f"{ready_s:.2f}", f"{cpu:.2f}", f"{rss:.0f}")],
        )
    )
    report.finish(flags)


def _start(directory: Path, revision: str) -> Start:
    api = directory / "api.sock"
    began_at = time.monotonic()
    agent = subprocess.Popen(
        [
            *(str(Path(sys.executable).with_name("modelcache")), "agent"),
            *("--data-dir", str(directory / "data"), "--socket", str(api)),
            *("--listen", "127.0.0.1:0", "--allow-any-disk", "--log-level", "warning"),
        ]
    )
    try:
        peak, ready_s = 0, None
        while ready_s is None or time.monotonic() - began_at < ready_s + WATCHED_S:
            if ready_s is None and _holds(api, revision):
                ready_s = time.monotonic() - began_at
            if agent.poll() is not None or time.monotonic() - began_at > START_TIMEOUT_S:
                sys.exit("the agent did not become ready")
            peak = max(peak, rss_bytes(tree_of(agent.pid)))
            time.sleep(0.02)
        return Start(ready_s, peak, cpu_seconds(tree_of(agent.pid)))
    finally:
        agent.terminate()
        agent.wait()


def _holds(api: Path, revision: str) -> bool:
    """Whether the agent answers, and says of the model that about all of it is there."""
    connection = http.client.HTTPConnection("agent", timeout=START_TIMEOUT_S)
    try:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(api))
        connection.request("GET", "/v1/revisions")
        listed = json.loads(connection.getresponse().read())["revisions"]
    except OSError:
        return False
    finally:
        connection.close()
    share = next(one["bytesPresent"] for one in listed if one["revision"] == revision) / MODEL_BYTES
    return 0.98 < share < 1.0


if __name__ == "__main__":
    main()
