"""Makes models to test with: safetensors shards and what lies beside them, the same for one seed.

No two places in a model's weights hold the same megabyte, so that bytes which end up at a wrong
offset, in a wrong file or twice never look right.
"""

import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

POOL_BYTES = 16 << 20  # random bytes that everything is cut from: making them is the slow part
PIECE_BYTES = 1 << 20
ROW_VALUES = 1024
VALUE_BYTES = 2  # F16, which numpy knows
ROW_BYTES = ROW_VALUES * VALUE_BYTES
MAX_TENSOR_ROWS = 16384  # 32 MiB
HEADER_ALIGNMENT = 8  # safetensors: the data begins at a multiple of it


@dataclass(frozen=True)
class FileFacts:
    """What a file of a model must be, wherever it is read."""

    size_bytes: int
    sha256: str


Model = Mapping[str, FileFacts]


def make_model(directory: Path, *, seed: int, weight_bytes: int, shards: int = 4) -> Model:
    """Write a model and return the facts of every file, by path.

    Args:
        directory: Where to; made if missing.
        seed: The same seed and sizes give the same bytes.
        weight_bytes: Of all tensors together, rounded up to whole rows in each shard.
        shards: Number of safetensors files.
    """
    source = _Bytes(seed)
    facts: dict[str, FileFacts] = {}
    weight_map: dict[str, str] = {}
    shard_rows = -(-weight_bytes // (shards * ROW_BYTES))
    for number in range(1, shards + 1):
        name = f"model-{number:05}-of-{shards:05}.safetensors"
        tensors = tensor_rows(number, shard_rows)
        weight_map |= dict.fromkeys(tensors, name)
        pieces = source.pieces(shard_rows * ROW_BYTES)
        facts[name] = _write(directory / name, _shard(tensors, pieces))
    total = {"total_size": shards * shard_rows * ROW_BYTES}
    documents = {
        "model.safetensors.index.json": {"metadata": total, "weight_map": weight_map},
        "config.json": {"architectures": ["TestModel"], "torch_dtype": "float16", "seed": seed},
        "generation_config.json": {"eos_token_id": 2, "max_new_tokens": 32},
        "tokenizer_config.json": {"tokenizer_class": "TestTokenizer", "model_max_length": 4096},
        "tokenizer.json": {"model": {"vocab": {f"token {i} of {seed}": i for i in range(20_000)}}},
    }
    for name, document in documents.items():
        facts[name] = _write(directory / name, iter([json.dumps(document).encode()]))
    facts["merges.txt"] = _write(directory / "merges.txt", iter([]))
    nested = "extra/prompts/système.txt"
    facts[nested] = _write(directory / nested, iter([f"seed {seed}\n".encode()]))
    return facts


def total_bytes(model: Model) -> int:
    """The size of all files together."""
    return sum(file.size_bytes for file in model.values())


def tensor_rows(shard: int, rows: int) -> dict[str, int]:
    """How a shard's rows are divided among its tensors, by name."""
    counts = [MAX_TENSOR_ROWS] * (rows // MAX_TENSOR_ROWS)
    if rows % MAX_TENSOR_ROWS:
        counts.append(rows % MAX_TENSOR_ROWS)
    return {f"model.blocks.{shard}.{i}.weight": count for i, count in enumerate(counts)}


def header(tensors: Mapping[str, int]) -> bytes:
    """A safetensors file up to its data: length, then JSON padded with spaces."""
    entries: dict[str, object] = {"__metadata__": {"format": "np"}}
    offset = 0
    for name, rows in tensors.items():
        end = offset + rows * ROW_BYTES
        entries[name] = {
            "dtype": "F16",
            "shape": [rows, ROW_VALUES],
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % HEADER_ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


class _Bytes:
    """Random-looking bytes by the gigabyte: odd cuts of one random pool, each numbered."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._pool = memoryview(self._random.randbytes(POOL_BYTES))
        self._seed = seed
        self._number = 0

    def pieces(self, size_bytes: int) -> Iterator[bytes | memoryview]:
        while size_bytes:
            length = min(PIECE_BYTES, size_bytes)
            stamp = hashlib.sha256(f"{self._seed} {self._number}".encode()).digest()[:length]
            start = self._random.randrange(POOL_BYTES - PIECE_BYTES)
            self._number += 1
            yield stamp
            yield self._pool[start : start + length - len(stamp)]
            size_bytes -= length


def _shard(
    tensors: Mapping[str, int], pieces: Iterator[bytes | memoryview]
) -> Iterator[bytes | memoryview]:
    yield header(tensors)
    yield from pieces


def _write(path: Path, pieces: Iterator[bytes | memoryview]) -> FileFacts:
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, size_bytes = hashlib.sha256(), 0
    with path.open("wb") as file:
        for piece in pieces:
            digest.update(piece)
            size_bytes += file.write(piece)
    return FileFacts(size_bytes, digest.hexdigest())
