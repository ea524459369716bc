"""An HTTP(S) origin that speaks enough of S3 and can do wrong on purpose.

Objects live in memory, or are sparse: `Zeros`. It answers HEAD, GET with ranges and If-Match,
and ListObjectsV2 of a bucket, and counts what it was asked and what it sent. Faults come in
one of two ways: `script` queues one per object request, `always` answers all of them alike.

    with FaultOrigin() as origin:
        origin.put("models/a.bin", data)
        origin.script(Stalled(after_bytes=10), slow_down("1"))
        … origin.url + "/models/a.bin" …
"""

import datetime as dt
import hashlib
import socket
import ssl
import threading
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import quote
from xml.sax.saxutils import escape

import trustme

from support.fault_answers import Asked, Conversation, Stored, Zeros
from support.faults import Fault

_PAGE = 1000


@dataclass
class Tls:
    """A certificate for localhost and 127.0.0.1, and the authority that issued it."""

    authority: trustme.CA = field(
        default_factory=lambda: trustme.CA(key_type=trustme.KeyType.ECDSA)
    )
    names: tuple[str, ...] = ("localhost", "127.0.0.1")

    @property
    def ca_pem(self) -> str:
        return self.authority.cert_pem.bytes().decode()

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(*self.names).configure_cert(context)
        return context


class FaultOrigin:
    """See the module. Serves inside its ``with`` block; one thread per connection.

    Attributes:
        honours_if_match: False answers with what it has, as some stores do.
        keeps_alive: False closes after every answer.
        known_keys: Access keys that may read; None asks nobody. Signatures are not checked.
        asked: Every request, in order.
        body_bytes: Body bytes sent.
        connections: Connections accepted.
        now: Wall clock for signatures that expire.
    """

    def __init__(
        self,
        tls: Tls | None = None,
        *,
        host: str = "127.0.0.1",
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self.honours_if_match = True
        self.keeps_alive = True
        self.known_keys: frozenset[str] | None = None
        self.asked: list[Asked] = []
        self.body_bytes = 0
        self.connections = 0
        self.now = now
        self._objects: dict[str, Stored] = {}
        self._script: deque[Fault] = deque()
        self._always: Fault | None = None
        self._revoked: set[str] = set()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._tls = tls
        self._context = tls.server_context() if tls else None
        self._listener = socket.create_server((host, 0), backlog=256)
        self._open: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._closing = threading.Event()

    # What a test says

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}" if self._tls else f"http://127.0.0.1:{self.port}"

    def put(self, name: str, data: bytes | Zeros, headers: tuple[tuple[str, str], ...] = ()) -> str:
        """Store or replace an object, ``bucket/key``; returns its ETag."""
        digest = hashlib.md5(data[:4096] + str(len(data)).encode()).hexdigest()
        if isinstance(data, bytes):
            digest = hashlib.md5(data).hexdigest()
        with self._lock:
            self._objects[name] = Stored(data, f'"{digest}"', headers)
        return f'"{digest}"'

    def delete(self, name: str) -> None:
        with self._lock:
            del self._objects[name]

    def script(self, *queue: Fault) -> None:
        """Act these out, one per object request, then behave."""
        with self._lock:
            self._script.extend(queue)

    def always(self, fault: Fault | None) -> None:
        """Answer every object request like this; None behaves again."""
        with self._lock:
            self._always = fault

    def expire_signatures(self) -> None:
        """Every signature seen so far is past its time from now on."""
        with self._lock:
            self._revoked |= {one.query.get("X-Amz-Signature", "") for one in self.asked} - {""}

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
        """Return when a condition over what was asked or sent holds."""
        with self._changed:
            if not self._changed.wait_for(condition, timeout_s):
                raise TimeoutError("the origin was not asked what the test waits for")

    def count(self, method: str = "GET") -> int:
        """Requests for objects."""
        return sum(1 for one in self.asked if one.method == method and "list-type" not in one.query)

    def ranges(self) -> Counter[str | None]:
        return Counter(one.range for one in self.asked if "list-type" not in one.query)

    # Running

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop_connections()
        for thread in list(self._threads):
            thread.join()

    def drop_connections(self) -> None:
        """Break off whatever is under way."""
        with self._lock:
            for one in self._open:
                with suppress(OSError):  # the client was first
                    one.shutdown(socket.SHUT_RDWR)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.add(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._start(self._converse, raw)

    def _converse(self, raw: socket.socket) -> None:
        connection = raw
        try:
            if self._context:
                connection = self._context.wrap_socket(raw, server_side=True)
            with self._changed:
                self.connections += 1
                self._open.add(connection)
                self._changed.notify_all()
            if not self._closing.is_set():
                Conversation(self, connection).run()
        except OSError:
            pass
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()
            self._threads.discard(threading.current_thread())

    # For conversations

    def note(self, asked: Asked) -> Fault:
        """Remember a request; returns how to answer it."""
        with self._changed:
            self.asked.append(asked)
            self._changed.notify_all()
            if "list-type" in asked.query:
                return Fault()
            if self._script:
                return self._script.popleft()
            return self._always or Fault()

    def note_sent(self, n_bytes: int) -> None:
        with self._changed:
            self.body_bytes += n_bytes
            self._changed.notify_all()

    def stored(self, name: str) -> Stored | None:
        with self._lock:
            return self._objects.get(name)

    def is_expired(self, query: dict[str, str]) -> bool:
        if query.get("X-Amz-Signature", "") in self._revoked:
            return True
        if "X-Amz-Date" not in query:
            return False
        signed_at = dt.datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%S%z")
        valid_s = int(query.get("X-Amz-Expires", "900"))
        return self.now() > signed_at + dt.timedelta(seconds=valid_s)

    def knows(self, asked: Asked) -> bool:
        """Whether a request bears an access key that may read."""
        if self.known_keys is None:
            return True
        said = asked.query.get("X-Amz-Credential") or asked.headers.get("authorization", "")
        return said.rpartition("Credential=")[2].partition("/")[0] in self.known_keys

    def listing(self, bucket: str, query: dict[str, str]) -> bytes | None:
        """A page of ListObjectsV2; None where there is no such bucket."""
        prefix, after = query.get("prefix", ""), query.get("continuation-token", "")
        with self._lock:
            inside = {
                name.partition("/")[2]: stored
                for name, stored in self._objects.items()
                if name.partition("/")[0] == bucket
            }
        if not inside:
            return None
        keys = sorted(key for key in inside if key.startswith(prefix) and key > after)
        page, more = keys[:_PAGE], len(keys) > _PAGE
        is_encoded = query.get("encoding-type") == "url"
        entries = "".join(_entry(quote(key) if is_encoded else key, inside[key]) for key in page)
        encoding = "<EncodingType>url</EncodingType>" if is_encoded else ""
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        return (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult>'
            f"<Name>{escape(bucket)}</Name><Prefix>{escape(prefix)}</Prefix><MaxKeys>{_PAGE}</MaxKeys>"
            f"<KeyCount>{len(page)}</KeyCount><IsTruncated>{str(more).lower()}</IsTruncated>"
            f"{encoding}{token}{entries}</ListBucketResult>"
        ).encode()

    @property
    def is_closing(self) -> threading.Event:
        return self._closing


def _entry(name: str, stored: Stored) -> str:
    """A listing says that there is a checksum, and of what; HEAD says which."""
    headers = [header for header, _ in stored.headers if header.startswith("x-amz-checksum-")]
    algorithms = {one.removeprefix("x-amz-checksum-").upper() for one in headers} - {"TYPE"}
    stated = "".join(f"<ChecksumAlgorithm>{one}</ChecksumAlgorithm>" for one in algorithms)
    return (
        f"<Contents><Key>{escape(name)}</Key><Size>{len(stored.data)}</Size>{stated}"
        "<LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        f"<ETag>{escape(stored.etag)}</ETag><StorageClass>STANDARD</StorageClass></Contents>"
    )
