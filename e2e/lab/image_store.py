"""Unpacks images once, into a containerd store that every node then gets a copy of by hard links.

What containerd keeps of an image is never written again, only removed: so nodes can share the
files, and with them the page cache. Its two small databases are copied.

Run as `python3 -m e2e.lab.image_store STORE ARCHIVE…`, as the first process of its own namespaces.
"""

import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from e2e.lab.commands import run, wait_until
from e2e.lab.settings import REPOSITORY

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
SOCKET = "/run/containerd/containerd.sock"
CTR = ("ctr", "--address", SOCKET, "--namespace", "k8s.io")
CONFIG = """\
version = 2
root = "{root}"
state = "/run/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{socket}"
"""


def make(store: Path, archives: Sequence[Path], older: Path | None) -> None:
    """Unpack the archives into ``store``; an older store spares what both have in common."""
    scratch = store.with_suffix(".new")
    shutil.rmtree(scratch, ignore_errors=True)
    if older is None:
        scratch.mkdir(parents=True)
    else:
        copy(older, scratch)
    run(
        [
            *("unshare", "--mount", "--propagation", "private", "--pid", "--fork"),
            *("--kill-child", "--mount-proc", "env", f"--chdir={REPOSITORY}"),
            *(sys.executable, "-m", "e2e.lab.image_store", str(scratch), *map(str, archives)),
        ]
    )
    scratch.rename(store)


def copy(store: Path, target: Path) -> None:
    """Copy a store of which no containerd runs: by hard links where the file system allows."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if store.stat().st_dev == target.parent.stat().st_dev:
        run(["cp", "--archive", "--link", str(store), str(target)])
    else:
        run(["cp", "--archive", str(store), str(target)])
    for database in target.rglob("*.db"):
        scratch = database.with_suffix(".own")
        shutil.copy2(database, scratch)
        scratch.replace(database)


def main() -> None:
    """Run a containerd on the store for as long as the import takes."""
    store, *archives = sys.argv[1:]
    run(["mount", "-t", "tmpfs", "run", "/run"])
    config = Path("/run/containerd.toml")
    config.write_text(CONFIG.format(root=store, socket=SOCKET), encoding="utf-8")
    with subprocess.Popen(
        ["containerd", "--config", str(config), "--log-level", "warn"], stdin=subprocess.DEVNULL
    ) as daemon:
        answers = [*CTR, "images", "list", "--quiet"]
        wait_until(
            lambda: run(answers, check=False).returncode == 0,
            "containerd",
            timeout_s=START_TIMEOUT_S,
        )
        for archive in archives:
            run([*CTR, "images", "import", archive])
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(STOP_TIMEOUT_S)


if __name__ == "__main__":
    main()
