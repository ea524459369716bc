"""``modelcache ls|status|verify|evict|pin|doctor``: ask this node's agent."""

import argparse
from pathlib import Path

from modelcache_api.errors import InvalidRequestError
from modelcache_api.messages import (
    NodeReport,
    RevisionList,
    RevisionReport,
    VerifyReport,
    VerifyRequest,
)
from modelcache_node.cli.doctor import run_doctor
from modelcache_node.cli.local_client import ask
from modelcache_node.cli.progress import human_bytes


def run(args: argparse.Namespace) -> int:
    match args.command:
        case "ls":
            return _ls(args)
        case "status":
            return _status(args)
        case "doctor":
            return run_doctor(args.socket, as_json=args.json)
        case "verify":
            return _verify(args)
        case _:
            return _change(args)


def _ls(args: argparse.Namespace) -> int:
    listing = ask(args.socket, "GET", "/v1/revisions", RevisionList)
    if args.json:
        print(listing.model_dump_json(by_alias=True))
        return 0
    print(f"{'REVISION':19}  {'STATE':15}  {'SIZE':>10}  {'PRESENT':>7}  {'LEASES':>6}  PINNED")
    for report in listing.revisions:
        percent = 100 * report.bytes_present // report.bytes_total if report.bytes_total else 100
        print(
            f"{report.revision[:19]}  {report.state:15}  {human_bytes(report.bytes_total):>10}  "
            f"{percent:5} %  {report.leases:6}  {'yes' if report.pinned else 'no'}"
        )
    return 0


def _status(args: argparse.Namespace) -> int:
    report = ask(args.socket, "GET", "/v1/status", NodeReport)
    if args.json:
        print(report.model_dump_json(by_alias=True))
        return 0
    ready = sum(revision.state == "Ready" for revision in report.revisions)
    print(f"agent {report.version}, store {report.store_id}")
    print(
        f"disk: {human_bytes(report.used_bytes)} used and {human_bytes(report.reserved_bytes)} "
        f"reserved of {human_bytes(report.capacity_bytes)}"
        + ("" if report.disk_healthy else "; the disk FAILS")
    )
    print(
        f"revisions: {len(report.revisions)}, {ready} ready; volumes waiting: {len(report.wanted)}"
    )
    return 0


def _verify(args: argparse.Namespace) -> int:
    revision = _full_revision(args.socket, args.revision)
    wish = VerifyRequest(wait_s=args.wait)
    report = ask(args.socket, "POST", f"/v1/revisions/{revision}/verify", VerifyReport, wish)
    if args.json:
        print(report.model_dump_json(by_alias=True))
    elif not report.corrupt:
        print(f"{report.chunks} chunks, all as they should be")
    else:
        print(
            f"{report.corrupt} of {report.chunks} chunks were corrupt; {report.repaired} repaired"
            + (
                ""
                if report.repaired == report.corrupt
                else "; the next prefetch of its source repairs the rest (the operator sends "
                "one; without it, run `modelcache prefetch`)"
            )
        )
    return 0 if report.corrupt == report.repaired else 1


def _change(args: argparse.Namespace) -> int:
    revision = _full_revision(args.socket, args.revision)
    method, action = {
        ("evict", False): ("POST", "evict"),
        ("pin", False): ("PUT", "pin"),
        ("pin", True): ("DELETE", "pin"),
    }[args.command, getattr(args, "off", False)]
    report = ask(args.socket, method, f"/v1/revisions/{revision}/{action}", RevisionReport)
    print(report.model_dump_json(by_alias=True) if args.json else f"{report.revision}: done")
    return 0


def _full_revision(socket: Path, text: str) -> str:
    """The one revision of this node that `text` begins.

    Raises:
        InvalidRequestError: none or several do.
    """
    wanted = text if text.startswith("sha256:") else f"sha256:{text}"
    listing = ask(socket, "GET", "/v1/revisions", RevisionList)
    found = [r.revision for r in listing.revisions if r.revision.startswith(wanted)]
    if len(found) != 1:
        raise InvalidRequestError(
            f"{len(found)} revisions of this node begin with {text!r}; `modelcache ls` lists them"
        )
    return found[0]
