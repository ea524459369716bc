"""``modelcache-keeper-ready``: whether the keeper of this container is the one that serves.

A keeper that starts takes over what another one holds, and the socket's name with it. While both
run, the name tells who is who; a process of another container has no number in this one. Exit code
0: it is ours, and answers.
"""

import argparse
import sys
from pathlib import Path

from modelcache_csi.fuse.keeper_client import KeeperAwayError, KeeperClient


def main() -> None:
    parser = argparse.ArgumentParser(prog="modelcache-keeper-ready", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True, help="where keepers serve")
    path = parser.parse_args().socket
    try:
        with KeeperClient(path) as client:
            if not client.pid:
                sys.exit("the keeper at the socket is another container's")
            next(client.names(), None)
    except KeeperAwayError as e:
        sys.exit(str(e))


if __name__ == "__main__":
    main()
