"""What `helm test` runs: is the agent of this node there, and does a model arrive whole?

Usage: helm_test.py HOST PORT CA_FILE SERVER_NAME [MODEL_DIR]
"""

# ruff: noqa: INP001, T201 -- a script on its own; what it prints is for the user

import hashlib
import socket
import ssl
import sys
import time
from pathlib import Path

#: An agent that has just been installed may still be starting.
PATIENCE_S = 60.0


def reach_agent(host: str, port: int, ca_file: str, server_name: str) -> str:
    """The agent's answer to a request without a token: its status line."""
    context = ssl.create_default_context(cafile=ca_file)
    give_up_at = time.monotonic() + PATIENCE_S
    while True:
        try:
            with (
                socket.create_connection((host, port), timeout=5) as plain,
                context.wrap_socket(plain, server_hostname=server_name) as conversation,
            ):
                request = f"GET /v1/prefetch HTTP/1.1\r\nHost: {server_name}\r\n\r\n"
                conversation.sendall(request.encode())
                return conversation.recv(4096).split(b"\r\n")[0].decode(errors="replace")
        except OSError as e:
            if time.monotonic() > give_up_at:
                raise
            print(f"the agent does not answer yet: {e}")
            time.sleep(2)


def read_model(folder: Path) -> None:
    """Read every file of a mounted model and print its size and SHA-256."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        sys.exit(f"no file beneath {folder}")
    for path in files:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        print(f"{digest}  {path.stat().st_size}  {path.relative_to(folder)}")


def main() -> None:
    host, port, ca_file, server_name, *model = sys.argv[1:]
    answer = reach_agent(host, int(port), ca_file, server_name)
    print(f"agent of this node, asked without a token: {answer}")
    if not answer.startswith("HTTP/1.1 401"):
        sys.exit("expected 401 Unauthorized")
    for folder in model:
        read_model(Path(folder))
    print("passed")


if __name__ == "__main__":
    main()
