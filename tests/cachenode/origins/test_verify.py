"""What is not expected is refused before anything is fetched."""

import time
from dataclasses import replace

import pytest

from modelcache_api.errors import InvalidSourceError
from modelcache_node.origins.pickles import is_pickle
from modelcache_node.patience import Patience
from modelcache_node.pulling import Puller

pytestmark = [pytest.mark.looptime(False), pytest.mark.timeout(180)]


@pytest.fixture
def web(stores):
    return stores.get("https")


async def pull(store, folder, movers, **changes):
    return await Puller(
        replace(store.options(), **changes),
        folder,
        movers,
        now=time.time,
        patience=Patience(30.0, clock=time.monotonic),
        on_progress=lambda _: None,
    ).run()


async def test_promise_what_is_not_expected_is_refused__another_revision(web, movers, tmp_path):
    web.put("config.json", b"{}")
    expected = (await pull(web, tmp_path / "1", movers)).revision
    await pull(web, tmp_path / "2", movers, expected=expected)
    web.put("config.json", b"[]")
    with pytest.raises(InvalidSourceError, match=f"{expected} was expected"):
        await pull(web, tmp_path / "3", movers, expected=expected)
    assert not list((tmp_path / "3").glob("**/config.json"))


async def test_promise_what_is_not_expected_is_refused__pickles(web, movers, tmp_path):
    for name in ("config.json", "model.safetensors", "pytorch_model.bin", "sub/optimizer.PT"):
        web.put(name, b"{}")
    with pytest.raises(InvalidSourceError, match=r"pytorch_model\.bin, sub/optimizer\.PT"):
        await pull(web, tmp_path / "1", movers, safetensors_only=True)
    chosen = await pull(
        web, tmp_path / "2", movers, safetensors_only=True, exclude=["*.bin", "*.PT"]
    )
    assert chosen.files == 2


@pytest.mark.parametrize(
    ("name", "runs_code"),
    [
        ("model.safetensors", False),
        ("model-00001-of-00002.safetensors.index.json", False),
        ("model.gguf", False),
        ("tokenizer.model", False),
        ("pytorch_model.bin", True),
        ("consolidated.00.pth", True),
        ("data.PKL", True),
        ("modeling_custom.py", True),
    ],
)
def test_what_can_run_code_is_known_by_its_name(name, runs_code):
    assert is_pickle(name) is runs_code
