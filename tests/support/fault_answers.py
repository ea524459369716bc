"""How a `FaultOrigin` answers on one connection: rightly, or as a fault says."""

import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

from support import faults
from support.faults import Fault, Status

if TYPE_CHECKING:
    from support.fault_origin import FaultOrigin

_PIECE_BYTES = 1 << 18


class Zeros:
    """A large object of zero bytes that takes no memory."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes

    def __len__(self) -> int:
        return self._size_bytes

    def __getitem__(self, span: slice) -> bytes:
        first, last, _ = span.indices(self._size_bytes)
        return bytes(max(0, last - first))


@dataclass(frozen=True)
class Stored:
    data: "bytes | Zeros"
    etag: str
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]

    @property
    def range(self) -> str | None:
        return self.headers.get("range")


class Conversation:
    """One connection: requests in, answers out."""

    def __init__(self, origin: "FaultOrigin", connection: socket.socket) -> None:
        self._origin = origin
        self._socket = connection
        self._raw = b""

    def run(self) -> None:
        while (asked := self._read_request()) is not None:
            fault = self._origin.note(asked)
            if isinstance(fault, faults.Held):
                while not fault.gate.wait(0.05) and not self._origin.is_closing.is_set():
                    pass
            if not self._answer(asked, fault) or not self._origin.keeps_alive:
                return

    def _read_request(self) -> Asked | None:
        while b"\r\n\r\n" not in self._raw:
            piece = self._socket.recv(65536)
            if not piece:
                return None
            self._raw += piece
        head, self._raw = self._raw.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        parts = urlsplit(target)
        query = {
            name: values[-1]
            for name, values in parse_qs(parts.query, keep_blank_values=True).items()
        }
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return Asked(method, unquote(parts.path), query, headers)

    def _answer(self, asked: Asked, fault: Fault) -> bool:
        """Whether the connection lives on."""
        if isinstance(fault, faults.Unanswered):
            return False
        if isinstance(fault, faults.StalledHead):
            self._socket.sendall(fault.raw)
            self._pause(None)
            return False
        if isinstance(fault, Status):
            self._send_status(asked, fault)
            return not fault.is_chunked
        if not self._origin.knows(asked):
            words = "The AWS Access Key Id you provided does not exist in our records."
            self._send_status(asked, Status(403, faults.error_xml("InvalidAccessKeyId", words)))
            return True
        name = asked.path.lstrip("/")
        if "list-type" in asked.query:
            body = self._origin.listing(name.rstrip("/"), asked.query)
            missing = Status(404, faults.error_xml("NoSuchBucket", "No such bucket"))
            self._send_status(asked, missing if body is None else Status(200, body))
            return True
        if self._origin.is_expired(asked.query):
            self._send_status(asked, faults.expired("AccessDenied"))
            return True
        stored = self._origin.stored(name)
        if stored is None:
            self._send_status(asked, Status(404, faults.error_xml("NoSuchKey", "No such key")))
            return True
        wanted = asked.headers.get("if-match")
        if wanted not in {None, stored.etag} and self._origin.honours_if_match:
            body = faults.error_xml("PreconditionFailed", "At least one condition did not hold")
            self._send_status(asked, Status(412, body))
            return True
        return self._send_object(asked, stored, fault)

    def _send_object(self, asked: Asked, stored: Stored, fault: Fault) -> bool:
        size = len(stored.data)
        span = None if isinstance(fault, faults.IgnoredRange) else _span(asked.range, size)
        if span == (0, 0) and asked.range:
            self._send_status(asked, Status(416, headers=(("Content-Range", f"bytes */{size}"),)))
            return True
        first, end = span or (0, size)
        if isinstance(fault, faults.WrongRange):
            first, end = first + fault.shift_bytes, min(size, end + fault.shift_bytes)
        headers = [("ETag", stored.etag), *stored.headers]
        if span:
            headers.append(("Content-Range", f"bytes {first}-{end - 1}/{size}"))
        is_chunked = isinstance(fault, faults.ChunkedBody)
        headers.append(
            ("Transfer-Encoding", "chunked") if is_chunked else ("Content-Length", str(end - first))
        )
        head = _head(206 if span else 200, headers)
        self._socket.sendall(fault.raw if isinstance(fault, faults.Head) else head)
        if asked.method == "HEAD":
            return True
        return self._send_body(stored, first, end, fault)

    def _send_body(self, stored: Stored, first: int, end: int, fault: Fault) -> bool:
        limit = getattr(fault, "after_bytes", None)
        stop = end if limit is None else min(end, first + limit)
        piece_bytes = getattr(fault, "piece_bytes", _PIECE_BYTES)
        for at in range(first, stop, piece_bytes):
            piece = stored.data[at : min(at + piece_bytes, stop)]
            self._send_piece(piece, at - first, fault)
            if isinstance(fault, faults.Trickling) and self._pause(fault.pause_s):
                return False
        if isinstance(fault, faults.ChunkedBody):
            self._socket.sendall(b"0\r\n\r\n")
        elif isinstance(fault, faults.Overlong):
            self._socket.sendall(b"x" * fault.extra_bytes)
        elif isinstance(fault, faults.Stalled):
            self._pause(None)
        elif isinstance(fault, faults.Reset):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._socket.close()
        return limit is None

    def _send_piece(self, piece: bytes, at: int, fault: Fault) -> None:
        if isinstance(fault, faults.Corrupted) and at <= fault.at_byte < at + len(piece):
            broken = bytearray(piece)
            broken[fault.at_byte - at] ^= 1
            piece = bytes(broken)
        if isinstance(fault, faults.ChunkedBody):
            piece = f"{len(piece):x}\r\n".encode() + piece + b"\r\n"
        self._socket.sendall(piece)
        self._origin.note_sent(len(piece))

    def _pause(self, seconds: float | None) -> bool:
        """Wait; True when the client went away or the test is over."""
        self._socket.settimeout(seconds if seconds is not None else 0.05)
        try:
            while not self._origin.is_closing.is_set():
                try:
                    return not self._socket.recv(1)
                except TimeoutError:
                    if seconds is not None:
                        return False
            return True
        finally:
            self._socket.settimeout(None)

    def _send_status(self, asked: Asked, status: Status) -> None:
        headers = list(status.headers)
        body = status.body
        if status.is_chunked:
            headers.append(("Transfer-Encoding", "chunked"))
            body = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
        else:
            headers.append(("Content-Length", str(len(body))))
        self._socket.sendall(
            _head(status.code, headers) + (b"" if asked.method == "HEAD" else body)
        )


def _head(code: int, headers: list[tuple[str, str]]) -> bytes:
    lines = [f"HTTP/1.1 {code} Whatever", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _span(header: str | None, size: int) -> tuple[int, int] | None:
    """(first, end) of a range; (0, 0) when the object has no such bytes; None for all of it."""
    if header is None:
        return None
    first_text, _, last_text = header.removeprefix("bytes=").partition("-")
    first = int(first_text)
    end = min(size, int(last_text) + 1) if last_text else size
    return (first, end) if first < end else (0, 0)
