"""A web server with a file list, or with one file of no list; it wants a bearer token."""

import base64
import email.utils
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from modelcache_api.messages import Integrity
from modelcache_node.origins.base import SourceOptions
from support.fault_origin import Tls
from support.fault_proxy import FaultProxy
from support.origins.harness import Harness
from support.threaded_server import QuietHandler, ThreadedServer

TOKEN = "web-sesame"
USER, PASSWORD = "web-reader", "web-password-sesame"
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


class WebServer:
    """Files by path. `states_tags` False: a date alone tells one state of a file from another."""

    def __init__(self) -> None:
        self.states_tags = True
        self.files: dict[str, tuple[bytes, int]] = {}
        self._clock_s = 1_700_000_000
        self.server = ThreadedServer(type("Handler", (_Handler,), {"web": self}))

    def put(self, path: str, data: bytes) -> None:
        self._clock_s += 1
        self.files[path] = data, self._clock_s


class _Handler(QuietHandler):
    web: WebServer

    def do_GET(self) -> None:  # noqa: N802 - the library's name
        path = unquote(urlsplit(self.path).path).lstrip("/")
        if self.headers.get("Authorization") not in (f"Bearer {TOKEN}", f"Basic {BASIC}"):
            self.send_answer(401, b"who are you?", {})
            return
        if path not in self.web.files:
            self.send_answer(404, b"no such file", {})
            return
        data, changed_s = self.web.files[path]
        tag = f'"{hashlib.md5(data).hexdigest()}"'
        date = email.utils.formatdate(changed_s, usegmt=True)
        stated = {"ETag": tag} if self.web.states_tags else {}
        wanted = (self.headers.get("If-Match", tag), self.headers.get("If-Unmodified-Since", date))
        if wanted != (tag, date):
            self.send_answer(412, b"changed", {})
            return
        self._range(data, {**stated, "Last-Modified": date})

    def _range(self, data: bytes, stated: dict[str, str]) -> None:
        header = self.headers.get("Range")
        if header is None:
            self.send_answer(200, data, stated)
            return
        first, last = (int(one) for one in header.removeprefix("bytes=").split("-"))
        if first >= len(data):
            self.send_answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            return
        part = data[first : last + 1]
        span = f"bytes {first}-{first + len(part) - 1}/{len(data)}"
        self.send_answer(206, part, {**stated, "Content-Range": span})


class WebStore(Harness):
    """A directory with a file list that is kept current."""

    kind = "https"
    integrity = Integrity.SHA256
    pins_ranges = False

    def __init__(self, web: WebServer, proxy: FaultProxy, secrets: Path, ca_file: Path) -> None:
        self.web = web
        self.proxy = proxy
        self.secrets = secrets
        self._ca_file = ca_file
        self._files: dict[str, bytes] = {}

    def new_source(self) -> None:
        self.web.files.clear()
        self.web.states_tags = True
        self._files = {}
        self.key("HTTP_BEARER_TOKEN", TOKEN)

    def put(self, path: str, data: bytes) -> None:
        self._files[path] = data
        self.web.put(f"model/{path}", data)
        files = [
            {"path": one, "size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
            for one, raw in self._files.items()
        ]
        document = json.dumps({"version": 1, "files": files}).encode()
        self.web.put("model/modelcache.json", document)

    def delete(self, path: str) -> None:
        del self.web.files[f"model/{path}"]

    @property
    def uri(self) -> str:
        return f"{self.proxy.url}/model/modelcache.json"

    @property
    def missing_uri(self) -> str:
        return f"{self.proxy.url}/nowhere/modelcache.json"

    def options(self, uri: str | None = None) -> SourceOptions:
        return SourceOptions(
            uri or self.uri,
            credentials_dir=self.secrets,
            ca_file=self._ca_file,
            page_size=self.page_size,
        )

    def spoil_credentials(self) -> None:
        self.key("HTTP_BEARER_TOKEN", "wrong")


def is_object(_method: str, target: str) -> bool:
    return not target.endswith("modelcache.json")


@contextmanager
def web_store(state: Path) -> Iterator[WebStore]:
    (state / "secrets").mkdir()
    tls = Tls()
    ca_file = state / "ca.pem"
    ca_file.write_text(tls.ca_pem)
    web = WebServer()
    with web.server, FaultProxy(web.server.port, is_object, tls) as proxy:
        yield WebStore(web, proxy, state / "secrets", ca_file)
