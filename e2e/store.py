"""The object store of a run: where pods reach it, how this machine fills it, what it has served."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.lab.s3_client import Credentials, S3Client
from e2e.models import Model

READ_ACTIONS = ("s3:GetObject", "s3:ListBucket", "s3:GetBucketLocation")


@dataclass(frozen=True)
class Request:
    """One line of the store's access log."""

    remote: str
    user: str
    operation: str
    key: str
    status: int
    error: str


class Store(ABC):
    """An S3 store that pods reach by address."""

    url: str
    region: str
    credentials: Credentials
    tls_url: str | None = None
    authority: Path | None = None

    @abstractmethod
    def client(self, credentials: Credentials | None = None) -> S3Client:
        """A client for this machine's side; as the store's owner unless told otherwise."""

    @abstractmethod
    def requests(self) -> list[Request]:
        """Everything the store was asked so far."""

    @abstractmethod
    def sent_bytes(self) -> int:
        """How much has left the store over the network since it exists, framing included."""

    @abstractmethod
    def limit(self, bits_per_s: int | None) -> None:
        """Slow the store's line down, or stop doing so."""

    @contextmanager
    def limited(self, bits_per_s: int) -> Iterator[None]:
        """A slow line for a while."""
        self.limit(bits_per_s)
        try:
            yield
        finally:
            self.limit(None)

    @abstractmethod
    def stop(self) -> None: ...

    @abstractmethod
    def start(self) -> None: ...

    def upload(
        self,
        bucket: str,
        prefix: str,
        directory: Path,
        model: Model,
        *,
        states_sha256: bool = False,
    ) -> str:
        """Put a model into the store; return its URI.

        With `states_sha256` equal files are one blob to a node, whatever their prefix.
        """
        client = self.client()
        client.create_bucket(bucket)
        for name, facts in model.items():
            key = f"{prefix}/{name}"
            sha256 = facts.sha256
            client.put_file(bucket, key, directory / name, sha256, states_sha256=states_sha256)
        return f"s3://{bucket}/{prefix}"

    def let_read(self, bucket: str, users: Sequence[Credentials]) -> None:
        """Let these accounts read a bucket, and no others any more."""
        statement = {
            "Effect": "Allow",
            "Principal": {"AWS": [user.access_key for user in users]},
            "Action": list(READ_ACTIONS),
            "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
        }
        policy = {"Version": "2012-10-17", "Statement": [statement]}
        self.client().put_policy(bucket, json.dumps(policy))


def parse_access_log(text: str) -> list[Request]:
    """Read versitygw's access log, which has the fields of Amazon's server access logs.

    A key may hold spaces, so the fields up to it are counted from the left, and those after it
    are found behind the first field that is a path.
    """
    found = []
    for line in text.splitlines():
        left, _, right = line.partition("] ")
        fields = right.split(" ")
        if not left or len(fields) < 6:
            continue
        remote, user, _request_id, operation = fields[:4]
        path_at = next(i for i, field in enumerate(fields) if i > 4 and field.startswith("/"))
        key = " ".join(fields[4:path_at])
        status, error = fields[path_at + 1 : path_at + 3]
        found.append(Request(remote, user, operation, key, int(status), error.strip("-")))
    return found
