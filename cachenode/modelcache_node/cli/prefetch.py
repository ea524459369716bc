"""``modelcache prefetch``: have an agent fetch a source, wait, and sum up."""

import argparse
import asyncio
import json
import time

from modelcache_api.messages import Done, Hello, Progress
from modelcache_node.cli.agent_address import agent_address
from modelcache_node.cli.mirrors import mirrors
from modelcache_node.cli.progress import ProgressBar, human_bytes
from modelcache_node.cli.sources import source_options
from modelcache_node.patience import Patience
from modelcache_node.prefetching import Prefetch


def run(args: argparse.Namespace) -> int:
    bar = ProgressBar(time.monotonic)

    def show(progress: Progress) -> None:
        bar.show(progress.bytes_present, progress.bytes_total, progress.note)

    options = source_options(args)
    prefetch = Prefetch(
        options,
        agent_address(args),
        Hello(
            namespace=args.namespace,
            model_cache=args.model_cache,
            model_cache_uid=args.model_cache_uid,
            request=args.request,
            expected=options.expected,
            ca_pem=options.ca_file.read_text() if options.ca_file else None,
        ),
        on_progress=show,
        patience=Patience(args.give_up, clock=time.monotonic),
        mirrors=mirrors(options, args.mirrors),
        resolved=args.resolved,
    )
    try:
        done = asyncio.run(prefetch.run())
    finally:
        bar.end()
    print(json.dumps(_summary(done)) if args.json else _sentence(done))
    return 0


def _summary(done: Done) -> dict[str, object]:
    summary = done.model_dump(by_alias=True, exclude={"type"})
    return {**summary, "seconds": round(done.seconds, 3)}


def _sentence(done: Done) -> str:
    return (
        f"{done.revision}\n{human_bytes(done.bytes)} in {done.seconds:.1f} s: "
        f"{human_bytes(done.bytes_from_origin)} from the origin, "
        f"{human_bytes(done.bytes_from_peers)} from peers; integrity {done.integrity}"
    )
