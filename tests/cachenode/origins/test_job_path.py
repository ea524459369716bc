"""A prefetch Job as the operator makes it, run as a process against its node's agent.

Only the places of its mounts are others; the kubelet's part is in the end-to-end tests.
"""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from modelcache_api.model_cache import ModelCache
from modelcache_operator.planning.job_arguments import (
    AGENT_DIR,
    CREDENTIALS_DIR,
    SOURCE_CA_DIR,
    JobSettings,
    JobWish,
)
from modelcache_operator.planning.jobs import job_manifest
from modelcache_operator.planning.observed import parse_node
from support.agent_in_cluster import agent_in_cluster
from support.agent_process import run_cli
from support.cluster_objects import model_cache, node

pytestmark = [pytest.mark.looptime(False), pytest.mark.timeout(180)]

TOKEN = "the kubelet's token"


@pytest.fixture
def hub(stores):
    found = stores.get("hf")
    for path, data in FILES.items():
        found.put(path, data)
    return found


FILES = {"config.json": b"{}", "model.safetensors": os.urandom(5000), "sub/a.txt": b"hello"}


@pytest.fixture
def agent():
    with agent_in_cluster(TOKEN, namespace="team") as (found, _):
        yield found


def run_job(agent, hub, folder: Path, *, source=None, layout="plain", give_up_s=50, authorities=""):
    """The Job's container, with its mounts in `folder`."""
    given = {"uri": hub.uri, "endpoint": hub.proxy.url, **(source or {})}
    body = model_cache(source=given)
    body["spec"]["layout"] = layout
    settings = JobSettings("image", "Always", (), agent.job_url, agent.ca_file.read_text())
    settings = replace(settings, authorities_pem=authorities)
    wish = JobWish("n1", "r" * 20, 1)
    job = job_manifest(ModelCache.model_validate(body), wish, parse_node(node("n1")), settings)
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    (folder / "agent").mkdir()
    (folder / "agent" / "token").write_text(TOKEN)
    (folder / "agent" / "ca.crt").write_text(agent.ca_file.read_text())
    (folder / "agent" / "authorities.crt").write_text(authorities)
    places = {AGENT_DIR: folder / "agent", CREDENTIALS_DIR: hub.secrets}
    if any(volume["name"] == "source-ca" for volume in pod["volumes"]):
        (folder / "source-ca").mkdir()
        (folder / "source-ca" / "ca.crt").write_text(hub.options().ca_file.read_text())
        places[SOURCE_CA_DIR] = folder / "source-ca"
    places["/dev/termination-log"] = folder / "termination"
    arguments = []
    for argument in container["args"]:
        for inside, outside in places.items():
            argument = argument.replace(inside, str(outside))  # noqa: PLW2901
        arguments.append(argument)
    return run_cli(*arguments, f"--give-up={give_up_s}")


def test_promise_the_hubs_library_finds_a_hub_layout__that_an_agent_fetched(agent, hub, tmp_path):
    ca = {"caConfigMapRef": {"name": "corp"}}
    done = run_job(agent, hub, tmp_path, source=ca, layout="hf")
    assert done.returncode == 0, done.stderr
    tree = agent.tree(json.loads(done.stdout)["revision"])
    found = snapshot_download(hub.repository, cache_dir=tree, local_files_only=True)
    for path, data in FILES.items():
        assert (Path(found) / path).read_bytes() == data
    assert not any(path.is_symlink() for path in tree.rglob("*"))


def test_a_private_ca_of_the_users_config_map_is_trusted_by_job_and_agent(agent, hub, tmp_path):
    done = run_job(agent, hub, tmp_path, source={"caConfigMapRef": {"name": "corp"}})
    assert done.returncode == 0, done.stderr
    tree = agent.tree(json.loads(done.stdout)["revision"])
    assert (tree / "sub" / "a.txt").read_bytes() == FILES["sub/a.txt"]


def test_what_the_administrator_trusts_is_trusted_and_shared_by_all(hub, tmp_path):
    authorities = hub.options().ca_file
    digests = set()
    for namespace in ("team", "rival"):
        (tmp_path / namespace).mkdir()
        with agent_in_cluster(TOKEN, "--also-trust", authorities, namespace=namespace) as (
            agent,
            _,
        ):
            done = run_job(agent, hub, tmp_path / namespace, authorities=authorities.read_text())
            assert done.returncode == 0, done.stderr
            digests.add(json.loads(done.stdout)["revision"])
    assert len(digests) == 1, "known by its place, which no namespace can answer for"


def test_a_private_ca_that_nobody_names_is_not_trusted(agent, hub, tmp_path):
    done = run_job(agent, hub, tmp_path, give_up_s=1)
    assert done.returncode == 75
    assert "certificate" in (tmp_path / "termination").read_text().lower()
