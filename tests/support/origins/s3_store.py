"""versitygw: an S3 server with real signatures."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from e2e.lab.s3_client import Credentials, S3Client, at_url
from modelcache_api.messages import Integrity
from modelcache_node.origins.base import SourceOptions
from support.fault_proxy import FaultProxy
from support.faults import Status, expired
from support.origins.harness import Harness, connects, free_port, running
from support.tools import server

CREDENTIALS = Credentials("reader", "sesame-open-sesame")


class S3Store(Harness):
    """Buckets at versitygw."""

    kind = "s3"
    integrity = Integrity.STORE_CHECKSUM

    def __init__(self, proxy: FaultProxy, secrets: Path) -> None:
        self.proxy = proxy
        self.secrets = secrets
        self.client = S3Client(at_url(proxy.url), "us-east-1", CREDENTIALS)
        self._numbers = itertools.count(1)
        self.bucket = ""

    def new_source(self) -> None:
        self.bucket = f"bucket-{next(self._numbers)}"
        self.client.create_bucket(self.bucket)
        self.key("AWS_ACCESS_KEY_ID", CREDENTIALS.access_key)
        self.key("AWS_SECRET_ACCESS_KEY", CREDENTIALS.secret_key)

    def put(self, path: str, data: bytes) -> None:
        self.client.put_bytes(self.bucket, f"model/{path}", data)

    def put_beside(self, key: str, data: bytes) -> None:
        self.client.put_bytes(self.bucket, key, data)

    def delete(self, path: str) -> None:
        self.client.delete(self.bucket, f"model/{path}")

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/model"

    @property
    def missing_uri(self) -> str:
        return "s3://no-such-bucket/model"

    def options(self, uri: str | None = None) -> SourceOptions:
        return SourceOptions(
            uri or self.uri,
            endpoint=self.proxy.url,
            credentials_dir=self.secrets,
            page_size=self.page_size,
        )

    def spoil_credentials(self) -> None:
        self.key("AWS_SECRET_ACCESS_KEY", "wrong")

    def expired(self) -> Status:
        return expired("AccessDenied")


def is_object(method: str, target: str) -> bool:
    parts = urlsplit(target)
    return (
        method == "GET" and parts.path.count("/") > 1 and "list-type" not in parse_qs(parts.query)
    )


@contextmanager
def s3_store(state: Path) -> Iterator[S3Store]:
    port = free_port()
    for name in ("data", "iam", "versions", "secrets"):
        (state / name).mkdir()
    argv: list[str | Path] = [
        server("versitygw"),
        f"--port=127.0.0.1:{port}",
        f"--access={CREDENTIALS.access_key}",
        f"--secret={CREDENTIALS.secret_key}",
        "--region=us-east-1",
        "--quiet",
        f"--iam-dir={state / 'iam'}",
        "posix",
        f"--versioning-dir={state / 'versions'}",
        state / "data",
    ]
    with running(argv, state / "log", connects(port)), FaultProxy(port, is_object) as proxy:
        yield S3Store(proxy, state / "secrets")
