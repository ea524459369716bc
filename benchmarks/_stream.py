"""One plain TCP stream between two hosts: the goodput that a shaped link really gives.

``python _stream.py send ADDRESS PORT N_BYTES`` serves one connection; ``… receive ADDRESS PORT``
reads it to its end and says bytes per second, from the first byte to the last.
"""

import socket
import subprocess
import sys
import time

from _netlab import Host

_PORT = 9
_PIECE_BYTES = 1 << 18


def goodput_bytes_per_s(sender: Host, receiver: Host, n_bytes: int) -> float:
    """Measure one stream."""
    here = [sys.executable, __file__]
    sending = subprocess.Popen(
        sender.command([*here, "send", sender.address, str(_PORT), str(n_bytes)]),
        stdout=subprocess.PIPE,
    )
    assert sending.stdout
    with sending.stdout:
        sending.stdout.readline()  # it listens
        done = subprocess.run(
            receiver.command([*here, "receive", sender.address, str(_PORT)]),
            check=True,
            capture_output=True,
            text=True,
        )
    sending.wait()
    return float(done.stdout)


def _send(address: str, port: int, n_bytes: int) -> None:
    piece = bytes(_PIECE_BYTES)
    with socket.create_server((address, port)) as listener:
        print("listening", flush=True)
        connection, _ = listener.accept()
        with connection:
            for _ in range(n_bytes // _PIECE_BYTES):
                connection.sendall(piece)


def _receive(address: str, port: int) -> None:
    n_bytes, began_at = 0, 0.0
    with socket.create_connection((address, port)) as connection:
        while piece := connection.recv(_PIECE_BYTES):
            began_at = began_at or time.monotonic()
            n_bytes += len(piece)
    print(n_bytes / (time.monotonic() - began_at))


if __name__ == "__main__":
    if sys.argv[1] == "send":
        _send(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        _receive(sys.argv[2], int(sys.argv[3]))
