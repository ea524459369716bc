"""Loads every tensor beneath a directory with safetensors; prints each file's names and bytes."""

import json
import sys
from pathlib import Path

from safetensors import safe_open

found: dict[str, dict[str, int]] = {}
for path in sorted(Path(sys.argv[1]).rglob("*.safetensors")):
    with safe_open(path, framework="np") as tensors:
        found[path.name] = {name: tensors.get_tensor(name).nbytes for name in tensors.keys()}  # noqa: SIM118 - not a mapping
print(json.dumps(found))
