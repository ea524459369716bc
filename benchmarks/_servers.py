"""A server to measure against: nginx as an S3 store of one bucket, over HTTP and TLS.

Runs from a directory of its own, on loopback, on free ports, as the user who measures. It answers
what anonymous clients ask of S3: an object by HEAD and by range (nginx itself), and
ListObjectsV2 (a file written beforehand).
"""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import trustme
from _installing import MissingToolError, debian_program

BUCKET = "models"

_CONFIG = """
{user}
worker_processes {workers};
daemon off;
error_log {state}/error.log error;
pid {state}/nginx.pid;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000;
  default_type application/octet-stream;
  client_body_temp_path {state}/body;
  proxy_temp_path {state}/proxy;
  fastcgi_temp_path {state}/fastcgi;
  uwsgi_temp_path {state}/uwsgi;
  scgi_temp_path {state}/scgi;
  ssl_certificate {state}/server.pem;
  ssl_certificate_key {state}/server.pem;
  ssl_session_cache shared:tls:1m;
  server {{
    listen 127.0.0.1:{http_port};
    listen 127.0.0.1:{https_port} ssl;
    root {root};
    {locations}
    location = /{bucket} {{ try_files /dev/null @list; }}
    location = /{bucket}/ {{ try_files /dev/null @list; }}
    location @list {{ root {state}; default_type application/xml; try_files /list.xml =404; }}
  }}
}}
"""


@dataclass(frozen=True)
class Store:
    """A running store.

    Attributes:
        ca_file: Authority of the TLS server's certificate.
        pid: Of nginx's first process.
    """

    http_url: str
    https_url: str
    ca_file: Path
    pid: int

    def endpoint(self, scheme: str) -> str:
        return self.http_url if scheme == "http" else self.https_url

    def object_url(self, scheme: str, name: str) -> str:
        return f"{self.endpoint(scheme)}/{BUCKET}/{name}"


@contextmanager
def nginx_store(
    bucket: Path, state: Path, *, workers: int = 2, locations: str = ""
) -> Iterator[Store]:
    """Serve a directory's files as the objects of a bucket.

    Args:
        bucket: The directory; it must be called BUCKET.
        state: An empty directory for the server.
        workers: nginx processes.
        locations: What else it answers, as nginx is configured.

    Raises:
        MissingToolError: there is no nginx, or it does not start.
    """
    program = debian_program("nginx", "nginx-light")
    http_port, https_port = _free_port(), _free_port()
    _write_certificates(state)
    (state / "list.xml").write_text(listing(bucket))
    (state / "nginx.conf").write_text(
        _CONFIG.format(
            # A master that is root would have its workers be nobody, who cannot read our files.
            user="user root root;" if os.geteuid() == 0 else "",
            workers=workers,
            state=state,
            http_port=http_port,
            https_port=https_port,
            root=bucket.parent,
            bucket=BUCKET,
            locations=locations,
        )
    )
    server = subprocess.Popen(
        [program, "-c", str(state / "nginx.conf"), "-p", str(state), "-e", str(state / "start.log")]
    )
    try:
        for port in (http_port, https_port):
            _await_port(port, server)
        yield Store(
            f"http://127.0.0.1:{http_port}",
            f"https://localhost:{https_port}",
            state / "ca.pem",
            server.pid,
        )
    finally:
        server.terminate()
        server.wait()


def _write_certificates(state: Path) -> None:
    authority = trustme.CA(key_type=trustme.KeyType.RSA)
    certificate = authority.issue_cert("localhost", "127.0.0.1", key_type=trustme.KeyType.RSA)
    authority.cert_pem.write_to_path(state / "ca.pem")
    certificate.private_key_and_cert_chain_pem.write_to_path(state / "server.pem")


def listing(bucket: Path) -> str:
    """A ListObjectsV2 answer of up to a thousand objects."""
    objects = sorted(bucket.iterdir())
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{BUCKET}</Name><Prefix></Prefix><KeyCount>{len(objects)}</KeyCount>"
        "<MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>"
        + "".join(map(_listed, objects))
        + "</ListBucketResult>"
    )


def _listed(path: Path) -> str:
    """One object; its ETag is the one that nginx makes of time and size."""
    status = path.stat()
    etag = f'"{int(status.st_mtime):x}-{status.st_size:x}"'
    return (
        f"<Contents><Key>{escape(path.name)}</Key>"
        "<LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        f"<ETag>{escape(etag)}</ETag><Size>{status.st_size}</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _await_port(port: int, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 10.0
    while server.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise MissingToolError("nginx did not start; see its start.log")
