"""Weights that a repository carries twice: as safetensors, and in an older format beside. Pure."""

import posixpath
from collections import Counter
from collections.abc import Iterable

from modelcache_api.manifest import File

#: Formats that repositories keep beside safetensors: PyTorch's, Keras's, Flax's.
_OLDER = (".bin", ".ckpt", ".h5", ".msgpack", ".pt", ".pth")
#: The same weights are half as large in half the precision; what is smaller is something else
#: (`training_args.bin`). With room for headers.
_LEAST_SHARE = 0.4


def duplicate_patterns(files: Iterable[File]) -> list[str]:
    """Patterns for `exclude` of what seems to be the safetensors' weights again, sorted.

    By names and sizes only: files of an older format that together are not much smaller than half
    of the safetensors files.
    """
    bytes_of: Counter[str] = Counter()
    for file in files:
        bytes_of[posixpath.splitext(file.path)[1]] += file.size_bytes
    least_bytes = _LEAST_SHARE * bytes_of[".safetensors"]
    return [f"*{suffix}" for suffix in _OLDER if least_bytes and bytes_of[suffix] >= least_bytes]
