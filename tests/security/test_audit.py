"""The audit trail: who mounted what, who was refused, in lines that nobody else can write."""

import json
import logging
import sys
from pathlib import PurePosixPath

from modelcache_api.errors import AccessDeniedError
from modelcache_api.log_format import JsonFormatter
from modelcache_csi import audit
from modelcache_csi.volume_context import parse_publish
from support.agent_process import Agent, agent_home, run_cli
from support.csi_plugin import publish_request

TARGET = "/var/lib/kubelet/pods/uid-1/volumes/kubernetes.io~csi/model/mount"


def audit_lines(agent):
    lines = [json.loads(line) for line in agent.log.read_text().splitlines()]
    return [line for line in lines if line["logger"] == "modelcache.audit"]


def test_each_mount_and_each_refusal_leaves_a_line(source):
    with agent_home() as home:
        agent = Agent(home)
        agent.start()
        try:
            run_cli(
                *("prefetch", *source.flags, "--socket", agent.socket),
                *("--namespace", "team", "--model-cache", "model"),
            )
            agent.lease("v1", namespace="team", podName="server-0")
            agent.lease("v2", namespace="rival", podName="spy-0")
        finally:
            agent.stop()
        session, granted, refused = audit_lines(agent)
    assert (session["audit"], session["outcome"]) == ("session", "proved")
    assert granted["revision"] == session["revision"]
    assert (granted["namespace"], granted["pod"], granted["outcome"]) == (
        "team",
        "server-0",
        "granted",
    )
    assert (refused["namespace"], refused["pod"], refused["outcome"], refused["reason"]) == (
        "rival",
        "spy-0",
        "refused",
        "NotProved",
    )


def test_the_plugin_says_what_it_mounted_and_refused(caplog):
    caplog.set_level(logging.INFO)
    request = publish_request(TARGET, attributes={"modelCache": "model"})
    publish = parse_publish(request, PurePosixPath("/var/lib/kubelet"))
    audit.mounted(publish, "sha256:x")
    audit.refused(publish, AccessDeniedError("no"))
    mounted, refused = caplog.records
    assert (mounted.outcome, mounted.namespace, mounted.revision) == ("granted", "team", "sha256:x")
    assert (refused.outcome, refused.reason) == ("refused", "AccessDenied")


def test_a_name_cannot_forge_a_line():
    """Log injection (CWE-117): quotes and line feeds in a name stay within their field."""
    record = logging.LogRecord("l", logging.INFO, __file__, 1, 'x"}\n{"audit":"mount"', (), None)
    record.namespace = 'a"\n{"outcome":"granted"}'
    text = JsonFormatter().format(record)
    assert "\n" not in text
    assert json.loads(text)["namespace"] == record.namespace


def test_an_exception_stays_on_its_line():
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord("l", logging.ERROR, __file__, 1, "m", (), sys.exc_info())
    assert "\n" not in JsonFormatter().format(record)
