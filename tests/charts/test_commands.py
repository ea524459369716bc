"""The chart's command lines, parsed by the programs that they start."""

import argparse
import json
import re
from pathlib import Path

import pytest

from modelcache_csi import __main__ as csi
from modelcache_node.cli.arguments import build_parser as agent_parser
from modelcache_operator.__main__ import build_parser as operator_parser
from support.charts import Chart, Rendering

VARIABLES = {
    "NODE_NAME": "n1",
    "POD_IP": "fd00::7",
    "MC_MODELCACHE_AGENT_SERVICE_HOST": "10.96.0.7",
}


def command(rendered: Rendering, part: str) -> list[str]:
    """A part's command line as the kubelet expands it, without the supervisor."""
    [container] = rendered.pod_specs()[part]["containers"]
    assert container["command"] == ["modelcache-supervise", "--"]
    return [
        re.sub(r"\$\((\w+)\)", lambda found: VARIABLES[found[1]], argument)
        for argument in container["args"]
    ]


def agent(rendered: Rendering) -> argparse.Namespace:
    program, *arguments = command(rendered, "agent")
    assert program == "modelcache"
    return agent_parser().parse_args(arguments)


def test_the_agent_listens_on_its_pod_s_address_only(rendered: Rendering) -> None:
    options = agent(rendered)
    assert options.listen == ("fd00::7", 7440)
    assert options.job_listen == ("fd00::7", 7441)
    assert options.health_listen == ("fd00::7", 7442)
    assert options.kubernetes
    assert options.node_name == "n1"


def test_the_agent_is_told_what_its_values_say(chart: Chart) -> None:
    options = agent(chart.render(agent={"capacity": "3500Gi", "allowAnyDisk": True}))
    assert options.capacity == 3500 * 2**30
    assert options.allow_any_disk


def test_the_plugin_is_told_how_lazy_mounts_are_made_and_when_given_up(chart: Chart) -> None:
    values = {"lazyWithout": "resend", "lazyLostAfterSeconds": 45}
    program, *arguments = command(chart.render(csi=values), "csi")
    assert program == "modelcache-csi"
    settings = csi._settings(csi._parser().parse_args(arguments))
    assert settings.lazy_lost_after_s == 45
    assert settings.lazy_features.missing == ("resend",)
    assert csi._settings(csi._parser().parse_args([])).lazy_lost_after_s == 120


def test_agent_and_operator_agree_on_how_long_a_proof_holds(chart: Chart) -> None:
    rendered = chart.render(access={"proofMaxAgeSeconds": 2_000_000})
    assert agent(rendered).proof_max_age == 2_000_000
    _, *arguments = command(rendered, "operator")
    assert operator_parser().parse_args(arguments).proof_max_age == 2_000_000


def test_agent_and_jobs_are_told_of_the_proxy(chart: Chart) -> None:
    proxy = {
        "https": "http://proxy.example:3128",
        "http": "http://plain.example:3128",
        "noProxy": ".svc,10.0.0.0/8",
    }
    rendered = chart.render(proxy=proxy)
    [container] = rendered.pod_specs()["agent"]["containers"]
    environment = {one["name"]: one.get("value") for one in container["env"]}
    assert environment["HTTPS_PROXY"] == proxy["https"]
    assert environment["HTTP_PROXY"] == proxy["http"]
    assert environment["NO_PROXY"] == proxy["noProxy"]
    _, *arguments = command(rendered, "operator")
    options = operator_parser().parse_args(arguments)
    assert (options.job_https_proxy, options.job_http_proxy) == (proxy["https"], proxy["http"])
    assert options.job_no_proxy == proxy["noProxy"]
    [policy] = [p for p in rendered.all("ValidatingAdmissionPolicy") if "-jobs" in str(p)]
    assert "e.name == 'HTTPS_PROXY'" in str(policy)
    assert "e.name == 'HTTP_PROXY'" in str(policy)


def test_agents_and_jobs_are_told_whom_to_trust(chart: Chart) -> None:
    pem = "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----"
    rendered = chart.render(authorities=pem)
    [config] = [one for one in rendered.all("ConfigMap") if "authorities.crt" in one["data"]]
    assert config["data"]["authorities.crt"].strip() == pem
    path = Path("/etc/modelcache/config/authorities.crt")
    assert agent(rendered).also_trust == path
    _, *arguments = command(rendered, "operator")
    assert operator_parser().parse_args(arguments).job_authorities_file == path
    for part in ("agent", "operator"):
        [volume] = [v for v in rendered.pod_specs()[part]["volumes"] if v["name"] == "config"]
        assert volume["configMap"]["name"] == config["metadata"]["name"]


def test_the_sources_limit_is_told_to_operator_and_agents(chart: Chart) -> None:
    limit = 50_000_000_000
    rendered = chart.render(origin={"maxBytesPerSecond": limit})
    _, *arguments = command(rendered, "operator")
    assert operator_parser().parse_args(arguments).origin_limit == limit
    assert agent(rendered).origin_limit == limit
    assert agent(chart.render()).origin_limit is None


def test_the_operator_is_told_of_mirrors(chart: Chart) -> None:
    mirrors = [
        {"source": "hf://", "mirrors": [{"endpoint": "https://hub.eu"}]},
        {"source": "s3://m/", "mirrors": [{"uri": "s3://m-eu/", "region": "eu-west-1"}]},
    ]
    _, *arguments = command(chart.render(mirrors=mirrors), "operator")
    told = operator_parser().parse_args(arguments).job_mirrors
    assert json.loads(told) == mirrors


def test_the_agent_is_told_where_sources_may_lead(chart: Chart) -> None:
    options = agent(
        chart.render(
            network={
                "allowedRanges": ["10.20.0.15/32", "fd00:20::/32"],
                "deniedRanges": ["10.244.0.0/16"],
                "allowedHosts": ["*.amazonaws.com"],
            }
        )
    )
    assert list(map(str, options.allow_range)) == ["10.20.0.15/32", "fd00:20::/32"]
    assert list(map(str, options.deny_range)) == ["10.244.0.0/16"]
    assert options.allow_host == ["*.amazonaws.com"]


def test_the_agent_finds_its_files_where_they_are_mounted(rendered: Rendering) -> None:
    [container] = rendered.pod_specs()["agent"]["containers"]
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    options = agent(rendered)
    for path in (
        options.tls_cert,
        options.tls_key,
        options.cluster_key_file,
        options.config,
        options.socket,
    ):
        assert any(path.is_relative_to(mount) for mount in mounts), path
    assert str(options.data_dir) in mounts


def test_plugin_and_agent_meet_at_one_socket_and_one_store(chart: Chart) -> None:
    rendered = chart.render(node={"dataDir": "/mnt/models", "socketDir": "/run/mc"})
    program, *arguments = command(rendered, "csi")
    assert program == "modelcache-csi"
    options = csi._parser().parse_args(arguments)
    assert options.node_name == "n1"
    assert options.health_port == 7443
    assert Path(options.agent_socket) == agent(rendered).socket
    assert Path(options.data_dir) == agent(rendered).data_dir


def test_the_operator_gives_jobs_the_release_s_image_and_agents(chart: Chart) -> None:
    rendered = chart.render(
        image={"repository": "r/mc", "tag": "9"},
        prefetch={"imagePullSecrets": [{"name": "a"}, {"name": "b"}]},
    )
    program, *arguments = command(rendered, "operator")
    assert program == "modelcache-operator"
    options = operator_parser().parse_args(arguments)
    assert options.image == "r/mc:9"
    assert options.image_pull_secret == ["a", "b"]
    assert (options.agent_host, options.agent_port) == ("10.96.0.7", 7441)


@pytest.mark.parametrize("level", ["debug", "info", "warning"])
def test_every_part_logs_as_much_as_is_asked_for(chart: Chart, level: str) -> None:
    rendered = chart.render(logLevel=level)
    assert agent(rendered).log_level == level
    assert operator_parser().parse_args(command(rendered, "operator")[1:]).log_level == level
    assert csi._parser().parse_args(command(rendered, "csi")[1:]).log_level == level
