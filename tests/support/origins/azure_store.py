"""Azurite: Microsoft's own emulator of Blob Storage, which checks keys and signatures."""

import hashlib
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from azure.storage.blob import BlobServiceClient, ContentSettings

from modelcache_api.messages import Integrity
from modelcache_node.origins.base import SourceOptions
from support.fault_origin import Tls
from support.fault_proxy import FaultProxy
from support.faults import Status, error_xml
from support.origins.harness import Harness, connects, free_port, running
from support.tools import server

ACCOUNT = "devstoreaccount1"
#: Azurite's documented key: no secret.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


class AzureStore(Harness):
    """Containers at azurite."""

    kind = "azure"
    integrity = Integrity.STORE_CHECKSUM

    def __init__(self, proxy: FaultProxy, secrets: Path, ca_file: Path | None = None) -> None:
        self.proxy = proxy
        self.secrets = secrets
        self._ca_file = ca_file
        self._numbers = itertools.count(1)
        self._service = BlobServiceClient(
            f"{proxy.url}/{ACCOUNT}",
            credential=KEY,
            connection_verify=str(ca_file) if ca_file else True,
        )
        self.container = ""

    def new_source(self) -> None:
        self.container = f"container-{next(self._numbers)}"
        self._service.create_container(self.container)
        self.key("AZURE_STORAGE_ACCOUNT_KEY", KEY)

    def put(self, path: str, data: bytes) -> None:
        settings = ContentSettings(content_md5=bytearray(hashlib.md5(data).digest()))
        blob = self._service.get_blob_client(self.container, f"model/{path}")
        blob.upload_blob(data, overwrite=True, content_settings=settings)

    def delete(self, path: str) -> None:
        self._service.get_blob_client(self.container, f"model/{path}").delete_blob()

    @property
    def uri(self) -> str:
        return f"az://{self.container}/model"

    @property
    def missing_uri(self) -> str:
        return "az://no-such-container/model"

    def options(self, uri: str | None = None) -> SourceOptions:
        return SourceOptions(
            uri or self.uri,
            endpoint=f"{self.proxy.url}/{ACCOUNT}",
            credentials_dir=self.secrets,
            ca_file=self._ca_file,
            page_size=self.page_size,
        )

    def spoil_credentials(self) -> None:
        self.key("AZURE_STORAGE_ACCOUNT_KEY", "d3Jvbmc=")

    def expired(self) -> Status:
        text = "Signature not valid in the specified time frame: Start [] - Expiry [] - Current []"
        return Status(403, error_xml("AuthenticationFailed", text))

    def close(self) -> None:
        self._service.close()


def is_object(method: str, target: str) -> bool:
    parts = urlsplit(target)
    return method == "GET" and "comp" not in parse_qs(parts.query)


@contextmanager
def azure_store(state: Path) -> Iterator[AzureStore]:
    """Over plain HTTP, as the emulator is mostly used."""
    (state / "secrets").mkdir()
    with _azurite(state) as port, FaultProxy(port, is_object) as proxy:
        store = AzureStore(proxy, state / "secrets")
        yield store
        store.close()


@contextmanager
def entra_store(state: Path) -> Iterator[AzureStore]:
    """Over TLS, where it takes Entra's tokens too: their claims count, not their signatures."""
    (state / "secrets").mkdir()
    tls = Tls()
    (state / "ca.pem").write_text(tls.ca_pem)
    issued = tls.authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(state / "key.pem")
    issued.cert_chain_pems[0].write_to_path(state / "cert.pem")
    flags = ("--oauth", "basic", "--cert", state / "cert.pem", "--key", state / "key.pem")
    with (
        _azurite(state, *flags) as port,
        FaultProxy(port, is_object, tls, store_speaks_tls=True) as proxy,
    ):
        store = AzureStore(proxy, state / "secrets", state / "ca.pem")
        yield store
        store.close()


@contextmanager
def _azurite(state: Path, *flags: str | Path) -> Iterator[int]:
    port = free_port()
    argv: list[str | Path] = [
        server("azurite"),
        *("--blobHost", "127.0.0.1", "--blobPort", str(port)),
        *("--inMemoryPersistence", "--skipApiVersionCheck", "--silent", "--disableTelemetry"),
        *flags,
    ]
    with running(argv, state / "log", connects(port)):
        yield port
