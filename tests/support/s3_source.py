"""A bucket of a model on loopback, which a test may change."""

from dataclasses import dataclass
from pathlib import Path

from modelcache_node.demo.s3_endpoint import S3Endpoint


@dataclass(frozen=True)
class Source:
    """A bucket that this test may change, and its endpoint."""

    folder: Path
    endpoint: S3Endpoint

    @property
    def flags(self) -> tuple[str, ...]:
        return ("s3://models/model", "--endpoint", self.endpoint.url, "--anonymous")

    def write(self, name: str, content: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def files(self) -> dict[str, bytes]:
        return content_of(self.folder)


def content_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
