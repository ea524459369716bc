"""The process of one mount, or rather its two: a server, and one that watches over it.

Each is a fork of the other. When the server dies, the watcher forks a new one, which has all
imports and the agent's descriptors already: a matter of milliseconds. When the watcher dies, the
server notices, forks, and watches over the child from then on. So no single death needs anybody
else; when both die at once, the plugin starts this program again.

``--device``, ``--ledger`` and ``--about`` are inherited descriptors. The program returns at once,
and leaves the two behind as nobody's children: they outlive who started them, and end with the
mount.
"""

import argparse
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from modelcache_api.log_format import log_as_json
from modelcache_csi.fuse import fd_passing
from modelcache_csi.fuse.about import MountAbout
from modelcache_csi.fuse.blobs import OpenBlobs, this_boot
from modelcache_csi.fuse.device import Device
from modelcache_csi.fuse.keeper_client import KeptMount
from modelcache_csi.fuse.ledger import SERVER, WATCHER, Ledger
from modelcache_csi.fuse.server import Ended, Server

#: A server that lived this long was sound: the next one starts at once. Arbitrary.
SOUND_AFTER_S = 10.0
#: Early deaths in a row that cost no pause.
FREE_RESTARTS = 20
#: The pause before every further one. Arbitrary.
RESTART_PAUSE_S = 0.2
#: Blobs whose descriptors the watcher keeps for the next server. Arbitrary; others have to be
#: asked of the agent again.
MAX_VAULT = 1024
_MAX_INDEX_BYTES = 16


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="modelcache-lazy", description=__doc__)
    add = parser.add_argument
    for name in ("--device", "--ledger", "--about"):
        add(name, type=int, required=True)
    add("--agent-socket", type=Path, required=True, help="where the agent hands files over")
    add("--keeper-socket", type=Path, required=True)
    options = parser.parse_args(arguments)
    if os.fork():
        os._exit(0)
    log_as_json("INFO")
    _raise_descriptor_limit()
    ledger = Ledger(options.ledger)
    if not ledger.take(WATCHER, wait=False):
        return  # somebody else serves this mount
    about = MountAbout.read(options.about)
    blobs = OpenBlobs(this_boot())
    fds = (options.device, options.ledger, options.about)
    server = Server(
        Device(options.device),
        ledger,
        about,
        blobs,
        agent_socket=options.agent_socket,
        kept=KeptMount(options.keeper_socket, about.name, fds, clock=time.monotonic),
    )
    sys.exit(run(server, ledger, blobs))


def run(server: Server, ledger: Ledger, blobs: OpenBlobs) -> int:
    """Watch, or serve, whichever of the two this process is at the moment. An exit code."""
    n_early_deaths = 0
    is_successor = True
    while True:
        begun_s = time.monotonic()
        vault, to_vault = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        watcher_fd = os.pidfd_open(os.getpid())
        pid = os.fork()
        if pid == 0:
            vault.close()
            if _serve(server, to_vault, watcher_fd, is_successor=is_successor) is Ended.UNMOUNTED:
                os._exit(0)
            to_vault.close()
            os.close(watcher_fd)
            if not ledger.take(WATCHER, wait=False):
                os._exit(0)  # a new watcher is faster, and waits for us to go
            ledger.leave(SERVER)
            n_early_deaths, is_successor = 0, False
            continue
        to_vault.close()
        os.close(watcher_fd)
        code = _watch(pid, vault, server, blobs)
        vault.close()
        if code == 0:
            return 0
        is_successor = True
        n_early_deaths = n_early_deaths + 1 if time.monotonic() - begun_s < SOUND_AFTER_S else 0
        if n_early_deaths > FREE_RESTARTS:
            time.sleep(RESTART_PAUSE_S)


def _serve(
    server: Server, to_vault: socket.socket, watcher_fd: int, *, is_successor: bool
) -> Ended:
    to_vault.setblocking(False)  # noqa: FBT003

    def keep(blob_index: int, fds: list[int]) -> None:
        try:
            fd_passing.send(to_vault, str(blob_index).encode(), fds)
        except OSError:
            return  # a full vault, or none: the next server asks the agent

    server.on_handed_over = keep
    server.succeed(is_successor=is_successor)
    return server.serve(watcher_fd)


def _watch(pid: int, vault: socket.socket, server: Server, blobs: OpenBlobs) -> int:
    """Until the server ends; its exit code, negative for a signal's number."""
    server_fd = os.pidfd_open(pid)
    sources = select.poll()
    sources.register(server_fd, select.POLLIN)
    sources.register(vault, select.POLLIN)
    is_over = False
    while not is_over:
        for fd, _ in sources.poll():
            is_over = is_over or fd == server_fd
            if fd == vault.fileno() and not _keep(vault, server, blobs):
                sources.unregister(vault)
    os.close(server_fd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _keep(vault: socket.socket, server: Server, blobs: OpenBlobs) -> bool:
    """Keep what the server got, for the next one. False: there will be no more."""
    raw, fds = fd_passing.receive(vault, _MAX_INDEX_BYTES)
    if not raw:
        return False
    if len(fds) != 2 or len(list(blobs)) >= MAX_VAULT:
        fd_passing.close_all(fds)
        return True
    index = int(raw)
    blobs.adopt(index, fds[0], fds[1], server.size_of(index))
    return True


def _raise_descriptor_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main()
