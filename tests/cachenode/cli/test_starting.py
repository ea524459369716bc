"""What a command loads before it does something: a pull of a gigabyte takes half a second."""

import subprocess
import sys

import pytest

PULL = (
    "modelcache_node.cli.pull, modelcache_node.cli.sources, modelcache_node.pulling,"
    " modelcache_node.origins.s3_anonymous"
)
MOVER = "modelcache_node.transfer.worker"


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        (PULL, {"pydantic", "awscrt", "aiohttp", "aiobotocore", "importlib.metadata"}),
        (MOVER, {"pydantic", "asyncio", "ssl", "email", "dataclasses"}),
    ],
)
def test_nothing_heavy_is_loaded_that_a_plain_pull_does_without(modules, heavy):
    script = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert heavy.isdisjoint(done.stdout.split())
