"""From arguments to a command, and from its outcome to an exit code.

Exit codes, kept stable: 0 done, 1 a bug of ours, 2 wrong usage, 42 the source must be changed,
75 try again later (sysexits' EX_TEMPFAIL), 130 interrupted.
"""

import argparse
import contextlib
import importlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from modelcache_api.errors import InvalidRequestError, InvalidSourceError, ModelCacheError
from modelcache_node.cli.arguments import build_parser

EXIT_USAGE = 2
EXIT_BAD_SOURCE = 42
EXIT_TRY_AGAIN = 75
EXIT_INTERRUPTED = 128 + signal.SIGINT

#: Kubernetes keeps the last 4096 bytes of a termination message.
_MAX_TERMINATION_BYTES = 4096


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit."""
    args = None
    try:
        args = build_parser().parse_args(
            _with_configuration(sys.argv[1:] if argv is None else argv)
        )
        if getattr(args, "also_trust", None):
            authorities = importlib.import_module("modelcache_node.cli.authorities")
            authorities.trust_also(args.also_trust)
        code = importlib.import_module(f"modelcache_node.cli.{args.module}").run(args)
    except ModelCacheError as e:
        code = exit_code(e)
        print(f"modelcache: {e.reason}: {e}", file=sys.stderr)
        _tell_kubernetes(args, e)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except BrokenPipeError:  # `modelcache ls | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def exit_code(error: ModelCacheError) -> int:
    if isinstance(error, InvalidRequestError):
        return EXIT_USAGE
    if isinstance(error, InvalidSourceError):
        return EXIT_BAD_SOURCE
    return EXIT_TRY_AGAIN


def _with_configuration(argv: Sequence[str]) -> Sequence[str]:
    if not any(word.startswith("--config") for word in argv):
        return argv  # the common case, without importing a YAML parser
    configuration = importlib.import_module("modelcache_node.cli.configuration")
    extended: list[str] = configuration.with_configuration(argv)
    return extended


def _tell_kubernetes(args: argparse.Namespace | None, error: ModelCacheError) -> None:
    """Leave reason and message where the kubelet picks them up, for display."""
    target: Path | None = getattr(args, "termination_log", None)
    if target is None:
        return
    text = json.dumps({"reason": error.reason, "message": str(error)[:1024]})
    with contextlib.suppress(OSError):  # the exit code says the essential
        target.write_bytes(text.encode()[:_MAX_TERMINATION_BYTES])
