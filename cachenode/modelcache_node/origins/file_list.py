"""The file list: what makes a directory on a web server a source. Pure.

A file called ``modelcache.json`` (or ``….modelcache.json``), version 1::

    {"version": 1,
     "files": [{"path": "config.json", "size": 631, "sha256": "<64 hex digits>"},
               {"path": "shards/1.safetensors", "size": 4976698592, "sha256": "…",
                "url": "https://cdn.example/1"}]}

``path`` is the file's place in the tree. ``url`` is where it is, absolute or relative to the list;
by default it is the path. Unknown fields are refused: a newer list has a newer version.
"""

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from modelcache_api.errors import InvalidSourceError, ModelCacheError
from modelcache_api.manifest import MAX_FILE_BYTES, MAX_FILES, Checksum

VERSION = 1
NAME = "modelcache.json"
#: Largest list that is read: MAX_FILES entries of 600 bytes, about twice what one takes.
MAX_LIST_BYTES = 60_000_000
_FIELDS = {"path", "size", "sha256", "url"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a list; `url` is absolute."""

    path: str
    size_bytes: int
    sha256: Checksum
    url: str


def is_list(url_path: str) -> bool:
    """Whether a URL's path names a file list rather than a file."""
    name = url_path.rsplit("/", 1)[-1]
    return name == NAME or name.endswith(f".{NAME}")


def parse(raw: bytes, base_url: str) -> list[Entry]:
    """The files of a list that was read from `base_url`. Paths are not checked here.

    Raises:
        InvalidSourceError: not a file list of version 1; says what is wrong.
    """
    try:
        document = json.loads(raw)
        if not isinstance(document, dict) or document.get("version") != VERSION:
            raise InvalidSourceError(f'a file list says "version": {VERSION}')
        files = document["files"]
        if document.keys() != {"version", "files"} or not isinstance(files, list):
            raise InvalidSourceError('a file list has the fields "version" and "files"')
        if len(files) > MAX_FILES:
            raise InvalidSourceError(f"a file list has at most {MAX_FILES} files")
        return [_entry(one, number, base_url) for number, one in enumerate(files)]
    except (ValueError, KeyError, RecursionError) as e:
        raise InvalidSourceError(f"not a file list (JSON): {e}") from e


def _entry(one: Any, number: int, base_url: str) -> Entry:
    if not isinstance(one, dict) or not one.keys() <= _FIELDS:
        raise InvalidSourceError(f"file {number} of the list has unknown fields")
    path, size, sha256 = one.get("path"), one.get("size"), one.get("sha256")
    if not isinstance(path, str) or not path:
        raise InvalidSourceError(f"file {number} of the list has no path")
    if type(size) is not int or not 0 <= size <= MAX_FILE_BYTES:
        raise InvalidSourceError(f"{path!r} has no usable size in the list")
    try:
        checksum = Checksum.parse(f"sha256:{sha256}")
    except ModelCacheError:
        raise InvalidSourceError(f"{path!r} has no sha256 in the list") from None
    url = one.get("url", quote(path))
    if not isinstance(url, str):
        raise InvalidSourceError(f"{path!r} has no usable url in the list")
    return Entry(path, size, checksum, _absolute(url, base_url, path))


def _absolute(url: str, base_url: str, path: str) -> str:
    joined = urljoin(base_url, url)
    if urlsplit(joined).scheme not in ("http", "https"):
        raise InvalidSourceError(f"{path!r} is not at an http(s) URL")
    return joined
