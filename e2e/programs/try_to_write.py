"""Tries to change a volume in every way; prints the error of each, null where it went through."""

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

root = Path(sys.argv[1])
victim = next(path for path in sorted(root.iterdir()) if path.is_file())


def error_of(attempt: Callable[[], object]) -> str | None:
    try:
        attempt()
    except OSError as e:
        return errno.errorcode.get(e.errno or 0, str(e))
    return None


attempts: dict[str, Callable[[], object]] = {
    "create": (root / "new").touch,
    "make a directory": (root / "new").mkdir,
    "write": lambda: os.open(victim, os.O_WRONLY),
    "truncate": lambda: os.truncate(victim, 0),
    "rename": lambda: victim.rename(root / "other"),
    "link": lambda: (root / "other").hardlink_to(victim),
    "remove": victim.unlink,
    "change mode": lambda: victim.chmod(0o777),
    "change owner": lambda: os.chown(victim, 1, 1),
    "change times": lambda: os.utime(victim),
}
print(
    json.dumps(
        {
            "errors": {name: error_of(attempt) for name, attempt in attempts.items()},
            "mountinfo": Path("/proc/self/mountinfo").read_text(encoding="utf-8"),
        }
    )
)
