"""A safetensors file of many tensors."""

import json
import os
from pathlib import Path

#: Bytes of one tensor: a layer's matrix of a small model.
_TENSOR_BYTES = 16 << 20


def write_model(path: Path, n_bytes: int) -> None:
    """About `n_bytes`, a multiple of 1 MiB, no two blocks alike."""
    n_tensors = max(1, n_bytes // _TENSOR_BYTES)
    header: dict[str, object] = {
        f"layers.{i}.weight": {
            "dtype": "F16",
            "shape": [_TENSOR_BYTES // 2],
            "data_offsets": [i * _TENSOR_BYTES, (i + 1) * _TENSOR_BYTES],
        }
        for i in range(n_tensors)
    }
    raw = json.dumps(header).encode()
    raw += b" " * ((1 << 20) - 8 - len(raw))  # the tensors begin at a whole MiB
    block = bytearray(os.urandom(1 << 20))
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for i in range(n_tensors * (_TENSOR_BYTES >> 20)):
            block[:8] = i.to_bytes(8, "little")
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
