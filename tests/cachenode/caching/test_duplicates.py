"""A repository that carries its weights twice is told of, by the names of its files alone."""

import pytest

from modelcache_api.manifest import File
from modelcache_node.caching.duplicates import duplicate_patterns

GIB = 1 << 30


def patterns(**files):
    """Of files by path, `__` for a dot, in GiB."""
    listed = [(path.replace("__", "."), size) for path, size in files.items()]
    return duplicate_patterns(File(path, int(size * GIB), "11" * 32) for path, size in listed)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"model__safetensors": 4, "pytorch_model__bin": 4}, ["*.bin"]),
        (
            {"m-1__safetensors": 3, "m-2__safetensors": 3, "p-1__bin": 2, "p-2__bin": 4},
            ["*.bin"],
        ),
        ({"m__safetensors": 4, "original/consolidated__pth": 4}, ["*.pth"]),
        ({"m__safetensors": 4, "tf_model__h5": 4, "flax__msgpack": 4}, ["*.h5", "*.msgpack"]),
        ({"m__safetensors": 4, "half__pt": 2}, ["*.pt"]),
        ({"m__safetensors": 4, "training_args__bin": 0.001}, []),
        ({"m__safetensors": 4, "config__json": 4}, []),
        ({"pytorch_model__bin": 4, "consolidated__pth": 4}, []),
        ({"empty__safetensors": 0, "empty__bin": 0}, []),
    ],
)
def test_what_is_as_heavy_as_the_safetensors_is_suggested_to_be_left_out(files, expected):
    assert patterns(**files) == expected
