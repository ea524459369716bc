"""A small model in a store on loopback; and stores of every kind."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from modelcache_node.demo.s3_endpoint import S3Endpoint
from support.origins.kinds import Stores
from support.s3_source import Source


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    with ExitStack() as stack:
        yield Stores(stack, tmp_path_factory)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    with S3Endpoint(tmp_path / "s3") as endpoint:
        made = Source(tmp_path / "s3" / "models" / "model", endpoint)
        made.write("config.json", b'{"layers": 2}')
        made.write("weights.safetensors", bytes(range(256)) * 4096)
        yield made
