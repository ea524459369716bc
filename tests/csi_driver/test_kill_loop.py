"""Everything of ours is killed at random moments under readers that check every byte.

``make test`` runs a short version; ``make soak`` a long one (MODELCACHE_SOAK=1), and also holds the
longest stall to its bar. A stall is measured on bytes that are present on the node.
"""

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from support.agent_process import until
from support.lazy_node import LazyNode, Reader, ReaderReport
from support.mount_namespace import detach, make_shared, mount_tmpfs, mounts_at

pytestmark = [pytest.mark.root, pytest.mark.timeout(3600)]

IS_SOAK = bool(os.environ.get("MODELCACHE_SOAK"))
MIB = 1 << 20
#: Roles, and how often each is killed in relation to the others.
ROLES = ("server", "server", "watcher", "plugin", "agent", "keeper")
#: Between two kills, at random. Above a supervisor's restart of the plugin: one death at a time.
PAUSES_S = (0.2, 1.2)
STALL_BAR_S = 1.0


@dataclass(frozen=True)
class Load:
    """How much of it."""

    kills: int
    rounds: int
    download_limit: int
    sizes: dict[str, int]


SHORT = Load(
    kills=8, rounds=1, download_limit=12 * MIB, sizes={"a.bin": 33 * MIB, "b.bin": 40 * MIB}
)
LONG = Load(
    kills=300, rounds=5, download_limit=8 * MIB, sizes={"a.bin": 130 * MIB, "b.bin": 140 * MIB}
)
LONG_OLDER = Load(
    kills=100, rounds=2, download_limit=8 * MIB, sizes={"a.bin": 130 * MIB, "b.bin": 140 * MIB}
)


@pytest.fixture
def home(private_mounts: None) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="mc-"))
    mount_tmpfs(path)
    kubelet_root = path / "kubelet"
    kubelet_root.mkdir()
    mount_tmpfs(kubelet_root)
    make_shared(kubelet_root)
    yield path
    detach(kubelet_root)
    detach(path)
    shutil.rmtree(path)


@pytest.mark.parametrize("without", ["", "passthrough,resend"])
def test_promise_lazy_mounts_outlive_us(home: Path, without: str) -> None:
    load = SHORT if not IS_SOAK else LONG_OLDER if without else LONG
    chance = random.Random(f"{load.kills} {without}")
    node = LazyNode(home, download_limit=load.download_limit, without=without)
    killed: Counter[str] = Counter()
    while_coming: Counter[str] = Counter()
    reports: list[ReaderReport] = []
    node.start()
    try:
        for number in range(load.rounds):
            reports += one_round(node, load, number, chance, killed, while_coming)
        until(lambda: node.kept() == [], "the keeper to let go")
        assert_nothing_is_left(node, home)
    finally:
        log = (home / "log").read_text()
        node.stop()
    longest_s = max(report.longest_stall_s for report in reports)
    summary = {
        "without": without,
        "kills": dict(killed),
        "kills_while_it_came": while_coming["kills"],
        "readers": len(reports),
        "reads": sum(report.reads for report in reports),
        "passes": sum(report.passes for report in reports),
        "longest_stall_s": round(longest_s, 3),
        "longest_wait_s": round(max(report.longest_wait_s for report in reports), 3),
    }
    sys.stderr.write(f"{json.dumps(summary)}\n")
    assert [error for report in reports for error in report.errors] == [], log[-4000:]
    assert sum(report.wrong for report in reports) == 0
    assert sum(killed.values()) >= load.kills
    if IS_SOAK:
        assert longest_s <= STALL_BAR_S


def one_round(
    node: LazyNode,
    load: Load,
    number: int,
    chance: random.Random,
    killed: Counter[str],
    while_coming: Counter[str],
) -> list[ReaderReport]:
    """A new model: half of the kills while it comes, half when it is there."""
    digests = node.new_model(load.sizes, number)
    node.prefetch(number)
    target = node.publish(f"pod-{number}", number)
    assert mounts_at(target)[-1].fs_type == "fuse.modelcache"
    readers = [
        Reader(target / path, digest, how)
        for path, digest in digests.items()
        for how in ("read", "mmap")
    ]
    try:
        n_kills = load.kills // load.rounds
        before = sum(killed.values())
        kill(node, n_kills // 2, chance, killed, only_while=lambda: node.is_fetching)
        while_coming["kills"] += sum(killed.values()) - before
        node.until_fetched(600)
        kill(node, n_kills - (sum(killed.values()) - before), chance, killed)
        reports = [reader.stop() for reader in readers]
    except BaseException:
        for reader in readers:
            reader.kill()
        raise
    node.unpublish(target)
    assert mounts_at(target) == []
    return reports


def kill(
    node: LazyNode,
    n_kills: int,
    chance: random.Random,
    killed: Counter[str],
    *,
    only_while: Callable[[], bool] = lambda: True,
) -> None:
    """`kill -9`, one process at a time, each time after a pause of random length."""
    for _ in range(n_kills):
        if not only_while():
            return
        time.sleep(chance.uniform(*PAUSES_S))
        role = chance.choice(ROLES)
        pid = all_of(node)[role]
        os.kill(pid, signal.SIGKILL)
        killed[role] += 1
        until(partial(is_replaced, node, role, pid), "whoever replaces it")


def all_of(node: LazyNode) -> dict[str, int]:
    """Who is there, once everybody is."""
    until(lambda: set(ROLES) <= node.victims().keys(), "all of them")
    return node.victims()


def is_replaced(node: LazyNode, role: str, pid: int) -> bool:
    return node.victims().get(role, pid) != pid


def assert_nothing_is_left(node: LazyNode, home: Path) -> None:
    """No process of a mount, and no descriptor of one in plugin or keeper."""

    def lazy_processes() -> list[str]:
        return [
            entry.name
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and is_lazy(entry, home)
        ]

    until(lambda: not lazy_processes(), "the end of the mounts' processes")
    until(lambda: {"plugin", "keeper"} <= node.victims().keys(), "plugin and keeper")
    for role in ("plugin", "keeper"):
        until(lambda role=role: not lazy_descriptors(node.victims()[role]), f"{role} to let go")


def lazy_descriptors(pid: int) -> list[str]:
    held = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since
            held.append(os.readlink(fd))
    return [one for one in held if "/dev/fuse" in one or "memfd:modelcache" in one]


def is_lazy(process: Path, home: Path) -> bool:
    try:
        command = (process / "cmdline").read_bytes()
    except OSError:
        return False
    return b"modelcache_csi.fuse.serving" in command and bytes(home) in command
