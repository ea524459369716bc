"""``modelcache doctor``: check this node, and say what to mend."""

import json
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from modelcache_api.errors import ModelCacheError
from modelcache_api.messages import NodeReport, RevisionState
from modelcache_node.cli.local_client import ask

#: Above this share of the capacity, evictions will come with the next model.
_NEARLY_FULL = 0.9
#: First kernel with FUSE passthrough; lazy mounts are slower before it.
_PASSTHROUGH_KERNEL = (6, 9)
#: Connections, journals and data files of a few fetches at once. Arbitrary, twice what was seen.
_OPEN_FILES = 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `mend` says what to do, or is empty where all is well."""

    check: str
    found: str
    mend: str = ""


def run_doctor(socket: Path, *, as_json: bool) -> int:
    """Print the findings; exit code 1 where something should be mended."""
    findings = list(_findings(socket))
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            print(f"{'MEND' if finding.mend else 'ok  '}  {finding.check}: {finding.found}")
            if finding.mend:
                print(f"      {finding.mend}")
    return 1 if any(finding.mend for finding in findings) else 0


def _findings(socket: Path) -> Iterator[Finding]:
    yield _kernel()
    yield _open_files()
    try:
        report = ask(socket, "GET", "/v1/status", NodeReport)
    except ModelCacheError as e:
        yield Finding("agent", str(e), f"start `modelcache agent … --socket {socket}`")
        return
    yield Finding("agent", f"version {report.version} answers")
    yield from node_findings(report)


def node_findings(report: NodeReport) -> Iterator[Finding]:
    """What an agent's report tells; pure."""
    full = (report.used_bytes + report.reserved_bytes) / max(1, report.capacity_bytes)
    yield Finding(
        "capacity",
        f"{full:.0%} of {report.capacity_bytes} bytes",
        "give the node more disk, unpin or delete models" if full >= _NEARLY_FULL else "",
    )
    if not report.disk_healthy:
        yield Finding("disk", "I/O errors", "replace the disk; its errors are in the agent's log")
    if not report.leases_reported:
        yield Finding(
            "leases",
            "not reported since the agent's start",
            "nothing is evicted until the CSI plugin has reported; is it running?",
        )
    if report.lazy is not None and report.lazy.lacks:
        yield Finding("lazy mounts", f"do without {', '.join(report.lazy.lacks)}")
    for revision in report.revisions:
        if revision.state in (RevisionState.FAILED, RevisionState.WAITING_FOR_GRANT):
            yield Finding(
                f"revision {revision.revision[:19]}",
                f"{revision.state}: {revision.message or revision.reason}",
                "prefetch its source again, or look at the ModelCache's conditions",
            )


def _kernel() -> Finding:
    release = platform.release()
    numbers = tuple(int(part) for part in release.split(".")[:2] if part.isdigit())
    has_passthrough = numbers >= _PASSTHROUGH_KERNEL
    return Finding("kernel", f"{release}, {'with' if has_passthrough else 'no'} FUSE passthrough")


def _open_files() -> Finding:
    limit = os.sysconf("SC_OPEN_MAX")
    mend = "" if limit >= _OPEN_FILES else f"raise the limit of open files to {_OPEN_FILES}"
    return Finding("open files", f"at most {limit}", mend)
