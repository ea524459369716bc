"""What `helm test` runs in the cluster, run here against the agent's real Job API."""

import asyncio
import base64
import hashlib
import ssl
import sys
from pathlib import Path
from typing import cast

import pytest
from aiohttp import web

from modelcache_api.names import AGENT_AUDIENCE
from modelcache_node.caching.cache import Cache
from modelcache_node.serving.job_api import build_job_api
from support.charts import CHART, Rendering
from support.http_servers import Runner

pytestmark = pytest.mark.looptime(False)


class NoReview:
    """A request without a token is refused before anybody is asked about it."""

    async def namespace_of(self, token: str) -> str:
        raise AssertionError(token)


def job_api() -> web.Application:
    return build_job_api(cast("Cache", None), NoReview())


async def run_helm_test(port: int, ca_file: Path, *folders: Path) -> tuple[int | None, str]:
    """Exit code and output, as the chart's pod would have them."""
    script = (CHART / "files" / "helm_test.py").read_text()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, "127.0.0.1", str(port), str(ca_file), AGENT_AUDIENCE),
        *map(str, folders),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def serve(app: web.Application, folder: Path) -> tuple[Runner, int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    runner = Runner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    return runner, runner.addresses[0][1]


def write_certificate(rendered: Rendering, folder: Path) -> None:
    for name, value in rendered.one("Secret", "-agent-tls")["data"].items():
        (folder / name).write_bytes(base64.b64decode(value))


async def test_an_agent_that_refuses_who_has_no_token_passes(
    rendered: Rendering, tmp_path: Path
) -> None:
    write_certificate(rendered, tmp_path)
    runner, port = await serve(job_api(), tmp_path)
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    try:
        code, output = await run_helm_test(port, tmp_path / "ca.crt", model)
    finally:
        await runner.cleanup()
    assert code == 0, output
    assert f"{hashlib.sha256(b'{}').hexdigest()}  2  config.json" in output
    assert output.endswith("passed\n")


async def test_whoever_lets_anybody_in_fails(rendered: Rendering, tmp_path: Path) -> None:
    write_certificate(rendered, tmp_path)
    runner, port = await serve(web.Application(), tmp_path)  # 404 for everything
    try:
        code, output = await run_helm_test(port, tmp_path / "ca.crt")
    finally:
        await runner.cleanup()
    assert code == 1
    assert "expected 401" in output


async def test_an_empty_model_fails(rendered: Rendering, tmp_path: Path) -> None:
    write_certificate(rendered, tmp_path)
    runner, port = await serve(job_api(), tmp_path)
    (tmp_path / "model").mkdir()
    try:
        code, output = await run_helm_test(port, tmp_path / "ca.crt", tmp_path / "model")
    finally:
        await runner.cleanup()
    assert code == 1
    assert "no file beneath" in output
