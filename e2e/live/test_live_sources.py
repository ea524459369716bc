"""Real services, with credentials from the environment: ``make test-live``. Not part of CI.

Each variable names a source that has a few small files; without it its tests are left out::

    MODELCACHE_LIVE_S3=s3://bucket/prefix           MODELCACHE_LIVE_GCS=gs://bucket/prefix
    MODELCACHE_LIVE_AZURE=abfs://c@account.dfs.core.windows.net/prefix
    MODELCACHE_LIVE_HF=hf://org/name@revision
    MODELCACHE_LIVE_HTTPS=https://host/modelcache.json

Credentials are the providers' own: AWS_…, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_…,
HF_TOKEN; or, for every kind, files in MODELCACHE_LIVE_CREDENTIALS_DIR, as in docs/SOURCES.md.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

KINDS = ("S3", "GCS", "AZURE", "HF", "HTTPS")
#: What is read at most of a source: files of a model's configuration, not its weights.
INCLUDE = ("*.json", "*.txt", "*.md")
TIMEOUT_S = 300

pytestmark = pytest.mark.timeout(TIMEOUT_S + 30)


@pytest.fixture(params=KINDS)
def source(request: pytest.FixtureRequest) -> str:
    variable = f"MODELCACHE_LIVE_{request.param}"
    uri = os.environ.get(variable)
    if not uri:
        pytest.skip(f"{variable} names no source")
    return uri


def test_a_real_service_is_listed_and_pulled_twice(source: str, tmp_path: Path) -> None:
    flags = [f"--include={pattern}" for pattern in INCLUDE]
    if folder := os.environ.get("MODELCACHE_LIVE_CREDENTIALS_DIR"):
        flags.append(f"--credentials-dir={folder}")
    argv = [sys.executable, "-m", "modelcache_node.cli", "pull", source, *flags, "--json"]
    revisions = []
    for number in (1, 2):
        target = tmp_path / str(number)
        done = subprocess.run(
            [*argv, "--to", str(target)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        revisions.append(done.stdout.partition('"revision"')[2][:80])
        assert [path for path in target.rglob("*") if path.is_file()]
    assert revisions[0] == revisions[1], "listed twice, the same state has the same name"
