"""A proxy in front of a real store that does, once or always, what no real store does on demand.

It forwards every request as it came (the Host too, which signatures cover) and lets each answer
pass, but for objects' bytes where a fault is scripted. With `Tls` it is the store's TLS.

    with FaultProxy(port_of_the_store, is_object) as proxy:
        proxy.script(slow_down("0"), Corrupted())
        … proxy.url …
"""

import http.client
import ssl
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from support.fault_origin import Tls
from support.faults import Corrupted, Fault, Status
from support.threaded_server import QuietHandler, ThreadedServer

#: Whether a request is for an object's bytes: method, and path with its query.
IsObject = Callable[[str, str], bool]
_PIECE_BYTES = 1 << 18
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade"}


@dataclass(frozen=True)
class Moved(Fault):
    """Redirect to the same place, once."""


@dataclass(frozen=True)
class Meanwhile(Fault):
    """Do something, then forward: what happens between two ranges."""

    action: Callable[[], object]


class FaultProxy:
    """See the module. One thread per connection.

    Attributes:
        asked: Requests for objects: path and query, headers in lower case.
        body_bytes: Bytes of objects sent.
        refusal: What to refuse, by a request's words, and how; the rest is forwarded.
    """

    def __init__(
        self,
        port: int,
        is_object: IsObject,
        tls: Tls | None = None,
        *,
        store_speaks_tls: bool = False,
    ) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.body_bytes = 0
        self.refusal: Callable[[str], Status | None] | None = None
        self.is_object = is_object
        self.target_port = port
        self.store_speaks_tls = store_speaks_tls
        self._script: deque[Fault] = deque()
        self._always: Fault | None = None
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = ThreadedServer(handler, tls.server_context() if tls else None)
        self._scheme = "https" if tls else "http"

    @property
    def port(self) -> int:
        return self._server.port

    @property
    def url(self) -> str:
        host = "localhost" if self._scheme == "https" else "127.0.0.1"
        return f"{self._scheme}://{host}:{self.port}"

    def script(self, *queue: Fault) -> None:
        """Act these out, one per request for an object, then forward."""
        with self._lock:
            self._script.extend(queue)

    def always(self, fault: Fault | None) -> None:
        """Treat every request for an object like this; None forwards again."""
        with self._lock:
            self._always = fault

    def reset(self) -> None:
        with self._lock:
            self._script.clear()
            self._always = None
            self.refusal = None
            self.asked.clear()
            self.body_bytes = 0

    def note(self, target: str, headers: dict[str, str]) -> Fault:
        with self._lock:
            self.asked.append((target, headers))
            if self._script:
                return self._script.popleft()
            return self._always or Fault()

    def note_sent(self, n_bytes: int) -> None:
        with self._lock:
            self.body_bytes += n_bytes

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.__exit__(kind, error, trace)


class _Handler(QuietHandler):
    proxy: FaultProxy

    def _answer(self) -> None:
        fault = Fault()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        is_object = self.proxy.is_object(self.command, self.path)
        if is_object:
            headers = {name.lower(): value for name, value in self.headers.items()}
            fault = self.proxy.note(self.path, headers)
        if self.proxy.refusal:
            fault = self.proxy.refusal(f"{self.path} {self.headers}") or fault
        if isinstance(fault, Meanwhile):
            fault.action()
        if isinstance(fault, Moved):
            fault = Status(307, headers=(("Location", self.path),))
        if isinstance(fault, Status):
            self._send(fault.code, list(fault.headers), fault.body)
            return
        self._forward(body, is_object, isinstance(fault, Corrupted))

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 - the library's names

    def _forward(self, body: bytes, is_object: bool, is_corrupted: bool) -> None:
        upstream = self._connection()
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    upstream.putheader(name, value)
            upstream.endheaders(body or None)
            answer = upstream.getresponse()
            headers = [one for one in answer.getheaders() if one[0].lower() not in _HOP_BY_HOP]
            if answer.length is None and self.command != "HEAD":
                self._send(answer.status, headers, answer.read())
                return
            self._send(answer.status, headers, None)
            while piece := answer.read(_PIECE_BYTES):
                if is_corrupted:
                    piece = bytes([piece[0] ^ 1]) + piece[1:]
                self.wfile.write(piece)
                if is_object:
                    self.proxy.note_sent(len(piece))
        finally:
            upstream.close()

    def _connection(self) -> http.client.HTTPConnection:
        port = self.proxy.target_port
        if self.proxy.store_speaks_tls:
            context = ssl._create_unverified_context()
            return http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
        return http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def _send(self, status: int, headers: list[tuple[str, str]], body: bytes | None) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if body is None or name.lower() != "content-length":
                self.send_header(name, value)
        if body is not None:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if body and self.command != "HEAD":
            self.wfile.write(body)
