"""A hub of models: the part of Hugging Face's API that is used here, with a CDN of another name.

Repositories have branches, commits that stay, files in large file storage (named by SHA-256, served
by redirect from the CDN) and others (named by git's SHA-1, served by the hub). Private ones want a
token; the CDN refuses one, as the real one does.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from modelcache_api.messages import Integrity
from modelcache_node.origins.base import SourceOptions
from support.fault_origin import Tls
from support.fault_proxy import FaultProxy
from support.faults import Status
from support.origins.harness import Harness
from support.threaded_server import QuietHandler, ThreadedServer

TOKEN = "hf_sesame"
#: What is as large is in large file storage, as .gitattributes would say. Arbitrary.
LFS_FROM_BYTES = 1000

Files = dict[str, bytes]


class Hub:
    """Its mutable state: repositories, each a list of commits, the last one being ``main``."""

    def __init__(self) -> None:
        self.page_size = 1000
        self.commits: dict[str, list[tuple[str, Files]]] = {}
        self.tags: dict[tuple[str, str], str] = {}
        self.server = ThreadedServer(type("Handler", (_Handler,), {"hub": self}))

    def commit(self, repository: str, files: Files) -> str:
        """Put a new commit on main; returns its name."""
        commits = self.commits.setdefault(repository, [])
        name = hashlib.sha1(f"{repository} {len(commits)}".encode()).hexdigest()
        commits.append((name, dict(files)))
        return name

    def files_at(self, repository: str, revision: str) -> tuple[str, Files] | None:
        commits = self.commits.get(repository, [])
        revision = self.tags.get((repository, revision), revision)
        if revision == "main" and commits:
            return commits[-1]
        return next((one for one in commits if one[0] == revision), None)


def git_name(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Handler(QuietHandler):
    hub: Hub

    def do_GET(self) -> None:  # noqa: N802 - the library's name
        parts = urlsplit(self.path)
        elements = [unquote(one) for one in parts.path.strip("/").split("/")]
        if elements[0] == "cdn":
            self._cdn(elements[1])
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._refuse(401, "RepoNotFound")
        elif elements[:2] == ["api", "models"] and elements[4:5] == ["revision"]:
            self._info("/".join(elements[2:4]), "/".join(elements[5:]))
        elif elements[:2] == ["api", "models"] and elements[4:5] == ["tree"]:
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            self._tree("/".join(elements[2:4]), elements[5], int(query.get("cursor", "0")))
        elif elements[:2] == ["api", "models"] and len(elements) == 4:
            self._info("/".join(elements[2:4]), "main")
        elif elements[2:3] == ["resolve"]:
            self._resolve("/".join(elements[:2]), elements[3], "/".join(elements[4:]))
        else:
            self._refuse(404, "EntryNotFound")

    do_HEAD = do_GET  # noqa: N815 - the library's name

    def _info(self, repository: str, revision: str) -> None:
        found = self.hub.files_at(repository, revision)
        if found is None:
            is_known = repository in self.hub.commits
            self._refuse(404, "RevisionNotFound" if is_known else "RepoNotFound")
            return
        siblings = [{"rfilename": path} for path in found[1]]
        self._json({"id": repository, "sha": found[0], "siblings": siblings})

    def _tree(self, repository: str, revision: str, first: int) -> None:
        found = self.hub.files_at(repository, revision)
        if found is None:
            self._refuse(404, "RevisionNotFound")
            return
        entries = [_entry(path, data) for path, data in sorted(found[1].items())]
        folders = {path.rpartition("/")[0] for path in found[1]} - {""}
        entries += [{"type": "directory", "path": one, "oid": "0" * 40} for one in folders]
        page, rest = entries[first : first + self.hub.page_size], entries[first:]
        link = {}
        if len(rest) > len(page):
            scheme = self.headers.get("X-Scheme", "https")
            at = f"{scheme}://{self.headers['Host']}{urlsplit(self.path).path}"
            following = first + len(page)
            link = {"Link": f'<{at}?recursive=true&cursor={following}>; rel="next"'}
        self._json(page, link)

    def _resolve(self, repository: str, revision: str, path: str) -> None:
        found = self.hub.files_at(repository, revision)
        data = found[1].get(path) if found else None
        if found is None or data is None:
            self._refuse(404, "EntryNotFound")
        elif len(data) < LFS_FROM_BYTES:
            self._bytes(data, git_name(data))
        else:
            digest = hashlib.sha256(data).hexdigest()
            _, _, port = self.headers["Host"].partition(":")
            location = f"https://127.0.0.1:{port}/cdn/{digest}?Expires=1&Signature=x"
            self.send_answer(302, b"", {"Location": location, "X-Linked-Etag": f'"{digest}"'})

    def _cdn(self, digest: str) -> None:
        every = (
            data
            for commits in self.hub.commits.values()
            for _, files in commits
            for data in files.values()
        )
        data = next((one for one in every if hashlib.sha256(one).hexdigest() == digest), None)
        if "Authorization" in self.headers:
            self.send_answer(400, b"<Error><Code>InvalidArgument</Code></Error>", {})
        elif data is None:
            self.send_answer(404, b"", {})
        else:
            self._bytes(data, f"{digest[:32]}-9")

    def _bytes(self, data: bytes, tag: str) -> None:
        header = self.headers.get("Range")
        if header is None:
            self.send_answer(200, data, {"ETag": f'"{tag}"'})
            return
        first, _, last = header.removeprefix("bytes=").partition("-")
        part = data[int(first) : int(last) + 1]
        stated = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
        self.send_answer(206, part, {"ETag": f'"{tag}"', "Content-Range": stated})

    def _json(self, document: object, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(document).encode()
        self.send_answer(200, body, {"Content-Type": "application/json", **(headers or {})})

    def _refuse(self, status: int, code: str) -> None:
        self.send_answer(status, b"", {"X-Error-Code": code, "X-Error-Message": code})


def _entry(path: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "type": "file",
        "path": path,
        "size": len(data),
        "oid": git_name(data),
    }
    if len(data) >= LFS_FROM_BYTES:
        digest = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 134}
    return entry


class HubStore(Harness):
    """Repositories on the hub; each change is a commit."""

    kind = "hf"
    integrity = Integrity.STORE_CHECKSUM
    requests_per_probe = 2  # the hub, then its CDN
    follows_changes = False  # a commit stays
    pins_ranges = False  # and so does what it names

    def __init__(self, hub: Hub, proxy: FaultProxy, secrets: Path, ca_file: Path) -> None:
        self.hub = hub
        self.proxy = proxy
        self.secrets = secrets
        self._ca_file = ca_file
        self._numbers = itertools.count(1)
        self._files: Files = {}
        self.repository = ""
        hub.page_size = self.page_size

    def new_source(self) -> None:
        self.repository = f"org/model-{next(self._numbers)}"
        self._files = {}
        self.key("HF_TOKEN", TOKEN)

    def put(self, path: str, data: bytes) -> None:
        self._files[path] = data
        self.hub.commit(self.repository, self._files)

    def delete(self, path: str) -> None:
        """As when a repository is withdrawn: its files are gone, commits and all."""
        for _, files in self.hub.commits[self.repository]:
            files.pop(path, None)

    @property
    def uri(self) -> str:
        return f"hf://{self.repository}"

    @property
    def missing_uri(self) -> str:
        return "hf://org/no-such-model"

    def options(self, uri: str | None = None) -> SourceOptions:
        return SourceOptions(
            uri or self.uri,
            endpoint=self.proxy.url,
            credentials_dir=self.secrets,
            ca_file=self._ca_file,
            page_size=self.page_size,
        )

    def spoil_credentials(self) -> None:
        self.key("HF_TOKEN", "wrong")

    def expired(self) -> Status:
        return Status(401, b"", (("X-Error-Message", "Invalid credentials"),))


def is_object(_method: str, target: str) -> bool:
    return "/resolve/" in target or target.startswith("/cdn/")


@contextmanager
def hub_store(state: Path) -> Iterator[HubStore]:
    (state / "secrets").mkdir()
    tls = Tls()
    ca_file = state / "ca.pem"
    ca_file.write_text(tls.ca_pem)
    hub = Hub()
    with hub.server, FaultProxy(hub.server.port, is_object, tls) as proxy:
        yield HubStore(hub, proxy, state / "secrets", ca_file)
