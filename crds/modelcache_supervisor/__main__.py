"""``modelcache-supervise -- COMMAND ARGUMENT…``: PID 1 of our containers.

A worker that is killed, or fails, is back in milliseconds instead of after the kubelet's back-off.
Exit codes 0 and 2 of the worker (done; called wrongly) end the supervisor too, with that code.
"""

import sys
from collections.abc import Sequence

from modelcache_supervisor.supervisor import Supervisor


def main(arguments: Sequence[str] | None = None) -> None:
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = words[1:] if words[:1] == ["--"] else words
    if not command or command[0].startswith("-"):
        sys.stderr.write(f"{__doc__}")
        sys.exit(2)
    sys.exit(Supervisor(command).run())


if __name__ == "__main__":
    main()
