"""Reads one byte of a model; prints when that was, and when the model's last byte had landed.

A file's modification time is that of the last byte written to it, by the clock of this node.
"""

import json
import sys
import time
from pathlib import Path

root = Path(sys.argv[1])
largest = max((path for path in root.iterdir() if path.is_file()), key=lambda p: p.stat().st_size)
with largest.open("rb") as file:
    file.read(1)
first_byte_at = time.time()
landed_at = max(path.stat().st_mtime for path in root.rglob("*") if path.is_file())
print(json.dumps({"firstByteAt": first_byte_at, "landedAt": landed_at}))
