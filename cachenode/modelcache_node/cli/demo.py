"""``modelcache demo``: three agents on loopback fetch a generated model."""

import argparse
import signal
import tempfile
from pathlib import Path

from modelcache_api.errors import InvalidRequestError
from modelcache_node.cli.demonstration import run_demonstration


def run(args: argparse.Namespace) -> int:
    if not 1 <= args.agents <= 16:
        raise InvalidRequestError("--agents takes 1 to 16")
    signal.signal(signal.SIGTERM, _interrupt)  # so that the agents are stopped on the way out
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=False)
        run_demonstration(args.keep, size_bytes=args.size, n_agents=args.agents)
        return 0
    with tempfile.TemporaryDirectory(prefix="modelcache-demo-") as folder:
        run_demonstration(Path(folder), size_bytes=args.size, n_agents=args.agents)
    return 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
