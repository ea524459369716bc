"""fake-gcs-server, which knows generations and CRC32C, and a token service of our own."""

import itertools
import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from modelcache_api.messages import Integrity
from modelcache_node.origins.base import SourceOptions
from support.fault_proxy import FaultProxy
from support.faults import Status, error_xml
from support.origins.harness import Harness, connects, free_port, running
from support.origins.identities import IdentityService
from support.tools import server

ACCOUNT = "reader@project.iam.gserviceaccount.com"


class GcsStore(Harness):
    """Buckets at fake-gcs-server. It asks nobody for a token; the token service does."""

    kind = "gcs"
    integrity = Integrity.STORE_CHECKSUM

    def __init__(self, proxy: FaultProxy, secrets: Path, tokens: IdentityService) -> None:
        self.proxy = proxy
        self.secrets = secrets
        self._tokens = tokens
        self._numbers = itertools.count(1)
        self.bucket = ""
        self.private_key = rsa.generate_private_key(65537, 2048).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )

    def new_source(self) -> None:
        self.bucket = f"bucket-{next(self._numbers)}"
        self._ask("POST", "/storage/v1/b", json.dumps({"name": self.bucket}).encode())
        self.key("GOOGLE_CREDENTIALS", self._account(f"{self._tokens.url}/google"))

    def put(self, path: str, data: bytes) -> None:
        name = quote(f"model/{path}", safe="")
        target = f"/upload/storage/v1/b/{self.bucket}/o?uploadType=media&name={name}"
        self._ask("POST", target, data)

    def delete(self, path: str) -> None:
        name = quote(f"model/{path}", safe="")
        self._ask("DELETE", f"/storage/v1/b/{self.bucket}/o/{name}", None)

    @property
    def uri(self) -> str:
        return f"gs://{self.bucket}/model"

    @property
    def missing_uri(self) -> str:
        return "gs://no-such-bucket/model"

    def options(self, uri: str | None = None) -> SourceOptions:
        return SourceOptions(
            uri or self.uri,
            endpoint=self.proxy.url,
            credentials_dir=self.secrets,
            page_size=self.page_size,
        )

    def spoil_credentials(self) -> None:
        self.key("GOOGLE_CREDENTIALS", self._account(f"{self._tokens.url}/refuse"))

    def expired(self) -> Status:
        return Status(400, error_xml("ExpiredToken", "The provided token has expired."))

    def _account(self, token_uri: str) -> str:
        return json.dumps(
            {
                "type": "service_account",
                "client_email": ACCOUNT,
                "private_key": self.private_key.decode(),
                "token_uri": token_uri,
                "project_id": "project",
            }
        )

    def _ask(self, method: str, target: str, body: bytes | None) -> None:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.proxy.target_port}{target}", data=body, method=method
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            answer.read()


def is_object(method: str, target: str) -> bool:
    return method == "GET" and not target.startswith("/storage/")


@contextmanager
def gcs_store(state: Path) -> Iterator[GcsStore]:
    port = free_port()
    (state / "secrets").mkdir()
    argv: list[str | Path] = [
        server("fake-gcs-server"),
        *("-backend", "memory", "-scheme", "http", "-host", "127.0.0.1"),
        *("-port", str(port), "-public-host", "127.0.0.1", "-log-level", "error"),
    ]
    with (
        IdentityService() as tokens,
        running(argv, state / "log", connects(port)),
        FaultProxy(port, is_object) as proxy,
    ):
        yield GcsStore(proxy, state / "secrets", tokens)
