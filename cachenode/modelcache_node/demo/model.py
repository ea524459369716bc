"""Writes a model to demonstrate with: safetensors shards, their index, config and tokenizer."""

import json
import os
from pathlib import Path

from modelcache_api.units import MIB

_SHARDS = 4
#: Random bytes are made once and repeated with a counter: the same speed as the disk's.
_BLOCK_BYTES = 8 * MIB


def write_model(folder: Path, size_bytes: int) -> None:
    """A model of about `size_bytes` in `folder`; no two blocks of it are alike."""
    folder.mkdir(parents=True)
    weight_map: dict[str, str] = {}
    tensor_bytes = max(2, size_bytes // _SHARDS // 2 * 2)
    for number in range(1, _SHARDS + 1):
        name = f"model-{number:05}-of-{_SHARDS:05}.safetensors"
        tensor = f"model.layers.{number - 1}.weight"
        _write_shard(folder / name, tensor, tensor_bytes)
        weight_map[tensor] = name
    documents = {
        "config.json": {"architectures": ["Demonstration"], "num_hidden_layers": _SHARDS},
        "model.safetensors.index.json": {
            "metadata": {"total_size": tensor_bytes * _SHARDS},
            "weight_map": weight_map,
        },
        "tokenizer.json": {"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}},
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document, indent=2))


def _write_shard(path: Path, tensor: str, tensor_bytes: int) -> None:
    """Format: header length (8 bytes, little-endian), JSON header, the tensors' bytes."""
    header = json.dumps(
        {tensor: {"dtype": "BF16", "shape": [tensor_bytes // 2], "data_offsets": [0, tensor_bytes]}}
    ).encode()
    header += b" " * (-len(header) % 8)
    block = bytearray(os.urandom(_BLOCK_BYTES))
    with path.open("wb") as out:
        out.write(len(header).to_bytes(8, "little") + header)
        for start in range(0, tensor_bytes, _BLOCK_BYTES):
            block[:8] = start.to_bytes(8, "little")
            out.write(block[: tensor_bytes - start])
