"""The keeper: holds the descriptors of lazy mounts while everybody else dies.

A FUSE mount lives while somebody has its ``/dev/fuse`` descriptor open. This process has it, and
does nothing else: it touches no mount, reads no descriptor, imports nothing of ours, and so has
hardly a reason to be replaced.

Protocol, version 1: a SOCK_SEQPACKET unix socket, root alone; one JSON object per datagram, names
of at most 100 characters. Each request is answered by one datagram, but for "take"::

    {"put": NAME} + descriptors   keep these, in place of any before      -> {"ok": true}
    {"get": NAME}                 -> {"name": NAME} + descriptors, or {"absent": NAME}
    {"drop": NAME}                forget them, also if they are unknown   -> {"ok": true}
    {"list": FROM}                -> {"names": […]}, sorted, those after FROM, at most 100
    {"take": 1}                   hand over to a new keeper: {"name": NAME} + descriptors for each
                                  mount, then {"end": how many}; after its {"put": ""} we retire

What a client put stays when it goes; a killed keeper gets it again from the servers, which notice,
and so does a retired one whose successor is gone.
"""

import argparse
import array
import json
import os
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path

#: Mounts of one node. Arbitrary, above the pods of a node.
MAX_MOUNTS = 1024
MAX_CLIENTS = 2048
MAX_FDS = 8
_MAX_DATAGRAM_BYTES = 16 << 10
_MAX_NAME = 100
_PAGE = 100
_HAND_OVER_TIMEOUT_S = 5.0  # for a message between keepers; arbitrary
_GONE_LOOKS = 3  # a second apart; arbitrary, above the restart of a killed worker


class Keeper:
    """Descriptors by mount. Mutable state: `mounts`, `is_retired`."""

    def __init__(self) -> None:
        self.mounts: dict[str, list[int]] = {}
        self.is_retired = False

    def handle(self, client: socket.socket, raw: bytes, fds: list[int]) -> None:
        """Answer one request. Raises ValueError or TypeError: it is none."""
        [(verb, name)] = dict(json.loads(raw)).items()
        if verb == "take":
            self._hand_over(client)
        elif not isinstance(name, str) or len(name) > _MAX_NAME:
            raise ValueError("not a name")
        elif verb == "put" and fds:
            self.put(name, fds)
            send(client, {"ok": True})
        elif verb == "get":
            held = self.mounts.get(name)
            send(client, {"name": name} if held else {"absent": name}, held or ())
        elif verb == "drop":
            close(self.mounts.pop(name, ()))
            send(client, {"ok": True})
        elif verb == "list":
            send(client, {"names": sorted(n for n in self.mounts if n > name)[:_PAGE]})
        else:
            raise ValueError("not a request")

    def put(self, name: str, fds: list[int]) -> None:
        if name not in self.mounts and len(self.mounts) >= MAX_MOUNTS:
            raise ValueError("too many mounts")
        close(self.mounts.pop(name, ()))
        self.mounts[name] = list(fds)
        fds.clear()

    def _hand_over(self, client: socket.socket) -> None:
        client.settimeout(_HAND_OVER_TIMEOUT_S)
        for name, fds in self.mounts.items():
            send(client, {"name": name}, fds)
        send(client, {"end": len(self.mounts)})
        self.is_retired = receive(client)[0] == b'{"put": ""}'


def take_over(path: str, keeper: Keeper) -> None:
    """Get everything from the keeper that serves at `path`, if one does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as old:
        old.settimeout(_HAND_OVER_TIMEOUT_S)
        if old.connect_ex(path):
            return  # nobody does
        send(old, {"take": 1})
        raw, fds = receive(old)
        while "end" not in (message := json.loads(raw)):
            keeper.put(message["name"], fds)
            raw, fds = receive(old)
        send(old, {"put": ""})
        say("took over", mounts=len(keeper.mounts))


def serve(path: str, keeper: Keeper) -> None:
    """Until retired. The socket's name goes to the newest keeper, in one step."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    os.umask(0o177)
    Path(f"{path}.new").unlink(missing_ok=True)
    listener.bind(f"{path}.new")
    listener.listen(64)
    os.rename(f"{path}.new", path)
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ, listener)
        say("serving", mounts=len(keeper.mounts))
        while not keeper.is_retired:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    accept(listener, selector)
                else:
                    attend(key.data, keeper, selector)
        for key in list(selector.get_map().values()):
            key.data.close()
    for fds in keeper.mounts.values():
        close(fds)


def until_gone(path: str) -> None:
    """Until nobody serves at `path` any more."""
    n_misses = 0
    while n_misses < _GONE_LOOKS:
        time.sleep(1)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as successor:
            n_misses = n_misses + 1 if successor.connect_ex(path) else 0


def accept(listener: socket.socket, selector: selectors.BaseSelector) -> None:
    client, _ = listener.accept()
    _, uid, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if uid != os.getuid() or len(selector.get_map()) > MAX_CLIENTS:
        client.close()
        return
    client.settimeout(_HAND_OVER_TIMEOUT_S)
    selector.register(client, selectors.EVENT_READ, client)


def attend(client: socket.socket, keeper: Keeper, selector: selectors.BaseSelector) -> None:
    """One request of a client; whoever asks nonsense is hung up on."""
    fds: list[int] = []
    try:
        raw, fds = receive(client)
        if raw:
            keeper.handle(client, raw, fds)
            return
    except (OSError, ValueError, TypeError) as e:
        say("hanging up", error=str(e))
    finally:
        close(fds)
    selector.unregister(client)
    client.close()


def send(client: socket.socket, message: dict[str, object], fds: Sequence[int] = ()) -> None:
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    client.sendmsg([json.dumps(message).encode()], ancillary)


def receive(client: socket.socket) -> tuple[bytes, list[int]]:
    fds = array.array("i")
    space = socket.CMSG_SPACE(MAX_FDS * fds.itemsize)
    raw, ancillary, _, _ = client.recvmsg(_MAX_DATAGRAM_BYTES, space, socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return raw, list(fds)


def close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def say(message: str, **fields: object) -> None:
    line = {"level": "info", "logger": "keeper", "message": message, **fields}
    sys.stderr.write(json.dumps(line) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="modelcache-keeper", description=__doc__)
    parser.add_argument("--socket", required=True, help="where to serve, and to look for another")
    path = parser.parse_args().socket
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    keeper = Keeper()
    take_over(path, keeper)
    while True:  # a container that ended would be started again, and take everything back
        serve(path, keeper)
        until_gone(path)
        keeper = Keeper()


if __name__ == "__main__":
    main()
