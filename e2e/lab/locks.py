"""Takes packages' entries out of a hashed lock: `python3 -m e2e.lab.locks LOCK NAME…`."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from e2e.lab.commands import LabError


def only(lock: str, names: Sequence[str]) -> str:
    """The part of a hashed lock that is about these packages.

    Raises:
        LabError: One of them is not in the lock.
    """
    entries = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)
    wanted = [entry for entry in entries if entry.partition("==")[0] in names]
    if len(wanted) != len(names):
        raise LabError(f"the lock does not hold all of {', '.join(names)}")
    return "".join(wanted)


if __name__ == "__main__":
    sys.stdout.write(only(Path(sys.argv[1]).read_text(encoding="utf-8"), sys.argv[2:]))
