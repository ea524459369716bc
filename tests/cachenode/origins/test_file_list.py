"""The file list: its one version, read strictly."""

import json

import pytest

from modelcache_api.errors import InvalidSourceError
from modelcache_node.origins.file_list import VERSION, Entry, is_list, parse

BASE = "https://host/models/m/modelcache.json"
SHA256 = "ab" * 32
#: Changing how this is read needs a new version.
GOLDEN = b"""{"version": 1, "files": [
  {"path": "config.json", "size": 631, "sha256": "%s"},
  {"path": "a b/1.bin", "size": 0, "sha256": "%s"},
  {"path": "2.bin", "size": 7, "sha256": "%s", "url": "https://cdn.example/2?x=y"}
]}""" % ((SHA256.encode(),) * 3)


def test_the_format_of_version_1_is_read_as_ever():
    assert VERSION == 1
    entries = parse(GOLDEN, BASE)
    assert [(one.path, one.size_bytes, one.url) for one in entries] == [
        ("config.json", 631, "https://host/models/m/config.json"),
        ("a b/1.bin", 0, "https://host/models/m/a%20b/1.bin"),
        ("2.bin", 7, "https://cdn.example/2?x=y"),
    ]
    assert {str(one.sha256) for one in entries} == {f"sha256:{SHA256}"}
    assert isinstance(entries[0], Entry)


def entry(**changes):
    return {"path": "a", "size": 1, "sha256": SHA256, **changes}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], '"version": 1'),
        ({"version": 2, "files": []}, '"version": 1'),
        ({"version": 1}, "files"),
        ({"version": 1, "files": {}}, '"files"'),
        ({"version": 1, "files": [], "more": 1}, "fields"),
        ({"version": 1, "files": [entry(mode="0777")]}, "unknown fields"),
        ({"version": 1, "files": ["a"]}, "unknown fields"),
        ({"version": 1, "files": [entry(path="")]}, "no path"),
        ({"version": 1, "files": [entry(size=-1)]}, "usable size"),
        ({"version": 1, "files": [entry(size="1")]}, "usable size"),
        ({"version": 1, "files": [entry(size=True)]}, "usable size"),
        ({"version": 1, "files": [entry(sha256="ab")]}, "no sha256"),
        ({"version": 1, "files": [entry(sha256=None)]}, "no sha256"),
        ({"version": 1, "files": [entry(url=1)]}, "usable url"),
        ({"version": 1, "files": [entry(url="file:///etc/passwd")]}, "http"),
    ],
)
def test_what_is_no_list_is_refused_and_says_why(document, said):
    with pytest.raises(InvalidSourceError, match=said):
        parse(json.dumps(document).encode(), BASE)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[" * 100_000, b'{"version": 1e999}'])
def test_what_is_no_json_is_refused(raw):
    with pytest.raises(InvalidSourceError):
        parse(raw, BASE)


def test_a_list_is_known_by_its_name():
    assert is_list("/m/modelcache.json")
    assert is_list("/llama.modelcache.json")
    assert not is_list("/m/model.json")
    assert not is_list("/modelcache.json/weights")
