"""Promises that the formats alone keep."""

import dataclasses
import random

import pytest

from modelcache_api.errors import UnsafePathError
from modelcache_api.file_paths import check_distinct, check_path
from modelcache_api.manifest import Checksum, ChecksumAlgorithm, File, Manifest

FILES = (
    File("config.json", 570, "0" * 64),
    File("model-00001.safetensors", 1 << 30, "1" * 64, Checksum(ChecksumAlgorithm.CRC32C, "0" * 8)),
    File("tokenizer/vocab.txt", 0, "2" * 64),
)


def test_promise_revision_names_the_content() -> None:
    shuffled = list(FILES)
    random.Random(7).shuffle(shuffled)
    revision = Manifest.of(FILES).revision
    assert Manifest.of(shuffled).revision == revision
    assert Manifest.parse(Manifest.of(shuffled).canonical()).revision == revision


@pytest.mark.parametrize(
    "difference",
    [
        {"path": "model-00002.safetensors"},
        {"size_bytes": (1 << 30) + 1},
        {"blob": "3" * 64},
        {"checksum": None},
        {"checksum": Checksum(ChecksumAlgorithm.CRC32C, "0" * 7 + "1")},
    ],
)
def test_promise_revision_names_the_content__any_difference_is_another(
    difference: dict[str, object],
) -> None:
    changed = dataclasses.replace(FILES[1], **difference)
    assert Manifest.of([FILES[0], changed, FILES[2]]).revision != Manifest.of(FILES).revision


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../up",
        "a/../../up",
        "a//b",
        "./a",
        "a/.",
        "",
        "a\0b",
        "a\nb",
        "a\\b",
        "n" * 256,
        "/".join(["d" * 200] * 6),
    ],
)
def test_promise_names_stay_inside_the_tree(name: str) -> None:
    with pytest.raises(UnsafePathError, match="rename or exclude it"):
        check_path(name)


@pytest.mark.parametrize(
    "names",
    [
        ("README.md", "readme.md"),
        ("caf\u00e9", "cafe\u0301"),
        ("a", "a/b"),
        ("Dir/a", "dir/b"),
    ],
)
def test_promise_names_stay_inside_the_tree__two_names_are_two_files(
    names: tuple[str, str],
) -> None:
    with pytest.raises(UnsafePathError):
        check_distinct(names)
