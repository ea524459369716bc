"""The lab's object store: versitygw, with real signatures, in a namespace of its own.

It listens for the cluster on an address, plain and with TLS, and for this machine's tests on a
unix socket: nobody needs to enter a namespace to upload a model.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path

from e2e.lab import network
from e2e.lab.commands import wait_until
from e2e.lab.processes import Processes
from e2e.lab.s3_client import Credentials, S3Client, S3Error, at_socket
from e2e.lab.settings import S3_ADDRESS, S3_PORT, S3_TLS_PORT, Settings
from e2e.lab.tools import VERSITYGW, program

REGION = "us-east-1"
PARTS = ("s3", "s3-tls")
READY_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Endpoint:
    """How to reach the store from inside the cluster, and as whom."""

    url: str
    tls_url: str
    authority: Path
    region: str
    credentials: Credentials


def new_credentials() -> Credentials:
    return Credentials(f"lab{secrets.token_hex(8)}", secrets.token_urlsafe(30))


def endpoint(settings: Settings, credentials: Credentials) -> Endpoint:
    return Endpoint(
        url=f"http://{S3_ADDRESS}:{S3_PORT}",
        tls_url=f"https://{S3_ADDRESS}:{S3_TLS_PORT}",
        authority=settings.pki / "ca.crt",
        region=REGION,
        credentials=credentials,
    )


def socket_path(settings: Settings) -> Path:
    return settings.directory / "s3.sock"


def client(settings: Settings, credentials: Credentials) -> S3Client:
    """A client for this machine's side."""
    return S3Client(at_socket(socket_path(settings)), REGION, credentials)


def start(settings: Settings, processes: Processes, credentials: Credentials) -> None:
    """Start the store and wait until it answers."""
    for directory in (settings.s3_data, settings.directory / "s3-accounts"):
        directory.mkdir(exist_ok=True)
    plain = [f"--port={S3_ADDRESS}:{S3_PORT}", f"--port={socket_path(settings)}"]
    certificate = [f"--cert={settings.pki / 's3.crt'}", f"--key={settings.pki / 's3.key'}"]
    secured = [f"--port={S3_ADDRESS}:{S3_TLS_PORT}", *certificate]
    for part, listeners in zip(PARTS, (plain, secured), strict=True):
        argv = _arguments(settings, credentials, listeners)
        processes.start(part, [*network.inside(settings.s3_netns), *argv])
    wait_ready(settings, credentials)


def wait_ready(settings: Settings, credentials: Credentials) -> None:
    def answers() -> bool:
        try:
            client(settings, credentials).list_buckets()
        except (OSError, S3Error):
            return False
        return True

    wait_until(answers, "the object store", timeout_s=READY_TIMEOUT_S)


def restart(settings: Settings, processes: Processes, credentials: Credentials) -> None:
    """Start a stopped store again, with what it held."""
    for part in PARTS:
        processes.restart(part)
    wait_ready(settings, credentials)


def stop(processes: Processes) -> None:
    for part in PARTS:
        processes.stop(part)


def _arguments(
    settings: Settings, credentials: Credentials, listeners: list[str]
) -> list[str | Path]:
    return [
        program(VERSITYGW, "versitygw"),
        *listeners,
        f"--access={credentials.access_key}",
        f"--secret={credentials.secret_key}",
        f"--region={REGION}",
        "--keep-alive",
        "--quiet",
        f"--access-log={settings.s3_access_log}",
        f"--iam-dir={settings.directory / 's3-accounts'}",
        "posix",
        settings.s3_data,
    ]
