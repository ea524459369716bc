"""Rivals of the swarm: s5cmd on every node straight from the origin, BitTorrent with a web seed."""

import math
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from _installing import go_program, python_with
from _lab_origin import LabOrigin
from _metering import FailedRunError
from _netlab import Host
from _pullers import S5CMD_VERSION
from _scratch import remove_tree
from _servers import BUCKET

LIBTORRENT_VERSION = "2.0.11"
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Race:
    """What a rival runs: from an origin to an empty directory per host, below `home`.

    After `patience_s` it is stopped.
    """

    origin: LabOrigin
    hosts: Sequence[Host]
    home: Path
    bucket: Path
    patience_s: float


#: Runs a race; seconds until the last node has it all, or infinity where it was stopped.
Rival = Callable[[Race], float]


@dataclass(frozen=True)
class S5cmdEach:
    """s5cmd on each node with so many objects at once."""

    workers: int

    def __str__(self) -> str:
        return f"--numworkers {self.workers}"

    def __call__(self, race: Race) -> float:
        program = str(go_program("s5cmd", S5CMD_VERSION, "github.com/peak/s5cmd/v2"))
        began_at = time.monotonic()
        processes = []
        for number, host in enumerate(race.hosts):
            target = race.home / str(number)
            target.mkdir(parents=True)
            command = [
                *(program, "--no-sign-request", "--numworkers", str(self.workers)),
                *("--endpoint-url", race.origin.url, "cp", f"s3://{BUCKET}/*", f"{target}/"),
            ]
            processes.append(
                subprocess.Popen(
                    host.command(command), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
                )
            )
        try:
            _await_all(processes, began_at + race.patience_s)
        except subprocess.TimeoutExpired:
            return math.inf
        finally:
            for process in processes:
                process.kill()
                process.communicate()
            remove_tree(race.home)
        return time.monotonic() - began_at


@dataclass(frozen=True)
class BitTorrent:
    """libtorrent on each node, all connected, the origin as web seed."""

    piece_kib: int
    slots: int

    def __str__(self) -> str:
        return f"pieces of {self.piece_kib} KiB, {self.slots} unchoke slots"

    def __call__(self, race: Race) -> float:
        home, hosts = race.home, race.hosts
        python = str(python_with("libtorrent", LIBTORRENT_VERSION))
        home.mkdir(parents=True)
        torrent = home / "torrent"
        subprocess.run(
            [
                *(python, str(_HERE / "_bt_torrent.py"), str(race.bucket), f"{race.origin.url}/"),
                *(str(self.piece_kib << 10), str(torrent)),
            ],
            check=True,
        )
        clients = [
            self._client(python, torrent, home / str(i), hosts, i) for i in range(len(hosts))
        ]
        try:
            for client in clients:
                assert client.stdout
                client.stdout.readline()
            began_at = time.monotonic()
            for client in clients:
                assert client.stdin
                client.stdin.write("go\n")
                client.stdin.flush()
            stopping = threading.Timer(race.patience_s, _kill_all, [clients])
            stopping.start()
            try:
                return max(_told(client) for client in clients) - began_at
            finally:
                stopping.cancel()
        finally:
            for client in clients:
                client.kill()
                client.communicate()
            remove_tree(home)

    def _client(
        self, python: str, torrent: Path, target: Path, hosts: Sequence[Host], number: int
    ) -> "subprocess.Popen[str]":
        target.mkdir()
        # Each pair is connected by one of its two.
        peers = [one.address for one in hosts[number + 1 :]]
        command = [
            *(python, str(_HERE / "_bt_client.py"), str(torrent), str(target)),
            *(hosts[number].address, str(self.slots), *peers),
        ]
        return subprocess.Popen(
            hosts[number].command(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )


S5CMD_GRID = (S5cmdEach(4), S5cmdEach(16))
BITTORRENT_GRID = tuple(BitTorrent(piece, slots) for piece in (256, 1024) for slots in (4, 16))
BITTORRENT_QUICK_GRID = (BitTorrent(1024, 8), BitTorrent(256, 8))


def _told(client: "subprocess.Popen[str]") -> float:
    assert client.stdout
    line = client.stdout.readline()
    return float(line) if line else math.inf


def _kill_all(clients: "Sequence[subprocess.Popen[str]]") -> None:
    for client in clients:
        client.kill()


def _await_all(processes: "Sequence[subprocess.Popen[bytes]]", until: float) -> None:
    for process in processes:
        _, words = process.communicate(timeout=max(0.0, until - time.monotonic()))
        if process.returncode:
            raise FailedRunError(f"s5cmd: {words.decode(errors='replace')[-500:]}")
