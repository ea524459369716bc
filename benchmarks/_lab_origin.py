"""nginx as an S3 store of one bucket, on a host of the laboratory, with its log read afterwards."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from _installing import debian_program
from _netlab import Host, await_tcp
from _servers import BUCKET, listing

PORT = 80

_CONFIG = """
user root root;
worker_processes 1;
daemon off;
error_log {state}/error.log error;
pid {state}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
  log_format moved '$status $body_bytes_sent "$http_range" $request_uri';
  access_log {state}/access.log moved;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000;
  default_type application/octet-stream;
  client_body_temp_path {state}/body;
  proxy_temp_path {state}/proxy;
  fastcgi_temp_path {state}/fastcgi;
  uwsgi_temp_path {state}/uwsgi;
  scgi_temp_path {state}/scgi;
  map $http_range $counted {{ "~^bytes=0-0$" ""; default "origin"; }}
  {limit_zone}
  server {{
    listen {address}:{port};
    root {root};
    {limit}
    location = /{bucket} {{ try_files /dev/null @list; }}
    location = /{bucket}/ {{ try_files /dev/null @list; }}
    location @list {{ root {state}; default_type application/xml; try_files /list.xml =404; }}
  }}
}}
"""
_LOGGED = re.compile(r'(\d{3}) (\d+) "(.*)" (\S+)')


@dataclass(frozen=True)
class Asked:
    """What the origin was asked and sent.

    Attributes:
        data_requests: Answered with bytes of objects, proofs of access left out.
        probes: One-byte requests, by which an agent proves its grants.
        n_bytes: Bytes of objects.
        throttled: Answered with 429.
    """

    data_requests: int
    probes: int
    n_bytes: int
    throttled: int


class LabOrigin:
    """A running store."""

    def __init__(self, host: Host, state: Path) -> None:
        self.url = f"http://{host.address}"
        self.host = host
        self._log = state / "access.log"
        self._offset = 0

    def asked(self) -> Asked:
        """Since the last call."""
        with self._log.open() as log:
            log.seek(self._offset)
            text = log.read()
            self._offset = log.tell()
        found = [
            (int(status), int(sent), span)
            for status, sent, span, target in _LOGGED.findall(text)
            if target.startswith(f"/{BUCKET}/") and "?" not in target
        ]
        moved = [one for one in found if one[0] in {200, 206} and one[1] > 0]
        probes = [one for one in moved if one[2] == "bytes=0-0"]
        data = [one for one in moved if one[2] != "bytes=0-0"]
        return Asked(
            len(data),
            len(probes),
            sum(sent for _, sent, _ in (*data, *probes)),
            sum(status == 429 for status, _, _ in found),
        )


@contextmanager
def lab_origin(
    host: Host, bucket: Path, state: Path, *, requests_per_s: float | None = None
) -> Iterator[LabOrigin]:
    """Serve a directory's files as a bucket.

    Args:
        host: Where.
        bucket: The directory; it must be called BUCKET.
        state: An empty directory for the server.
        requests_per_s: Above it, requests for data get HTTP 429; None: never.
    """
    program = debian_program("nginx", "nginx-light")
    zone = limit = ""
    if requests_per_s is not None:
        per_minute = int(requests_per_s * 60)
        zone = f"limit_req_zone $counted zone=data:1m rate={per_minute}r/m;"
        limit = "limit_req zone=data burst=8 nodelay; limit_req_status 429;"
    (state / "list.xml").write_text(listing(bucket))
    (state / "nginx.conf").write_text(
        _CONFIG.format(
            state=state,
            address=host.address,
            port=PORT,
            root=bucket.parent,
            bucket=BUCKET,
            limit_zone=zone,
            limit=limit,
        )
    )
    server = subprocess.Popen(
        host.command(
            [program, "-c", str(state / "nginx.conf"), "-p", str(state), "-e", str(state / "start")]
        )
    )
    try:
        await_tcp(host, host.address, PORT)
        yield LabOrigin(host, state)
    finally:
        server.terminate()
        server.wait()
