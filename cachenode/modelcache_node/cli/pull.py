"""``modelcache pull``: fetch a source into a directory, without an agent."""

import argparse
import asyncio
import datetime as dt
import json
import resource
import time
from typing import TYPE_CHECKING

from modelcache_node.cli.progress import ProgressBar, human_bytes
from modelcache_node.patience import Patience
from modelcache_node.transfer.movers import Movers

if TYPE_CHECKING:
    from modelcache_node.caching.tallies import Tally
    from modelcache_node.pulling import Pulled


def run(args: argparse.Namespace) -> int:
    began_at = time.monotonic()
    pulled = asyncio.run(_pull(args))
    seconds = time.monotonic() - began_at
    if args.json:
        print(json.dumps(_summary(pulled, seconds)))
    else:
        print(
            f"{pulled.revision}\n{pulled.files} files, {human_bytes(pulled.bytes)} in "
            f"{seconds:.1f} s; integrity {pulled.integrity}"
        )
    return 0


async def _pull(args: argparse.Namespace) -> "Pulled":
    bar = ProgressBar(time.monotonic)

    def show(tally: "Tally") -> None:
        bar.show(tally.bytes_present, tally.bytes_total, tally.note)

    try:
        async with Movers(
            count=args.movers, download_limit_bytes_per_s=args.download_limit
        ) as movers:
            # Loaded while the movers start.
            from modelcache_node.cli.sources import source_options  # noqa: PLC0415
            from modelcache_node.pulling import Puller  # noqa: PLC0415

            puller = Puller(
                source_options(args),
                args.to,
                movers,
                now=lambda: dt.datetime.now(dt.UTC).timestamp(),
                patience=Patience(args.give_up, clock=time.monotonic),
                on_progress=show,
            )
            return await puller.run()
    finally:
        bar.end()


def _summary(pulled: "Pulled", seconds: float) -> dict[str, object]:
    """Kept stable: scripts read it. CPU seconds are of this process and its movers."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "revision": pulled.revision,
        "bytes": pulled.bytes,
        "bytesFromOrigin": pulled.bytes_from_origin,
        "files": pulled.files,
        "seconds": round(seconds, 3),
        "cpu_seconds": round(sum(one.ru_utime + one.ru_stime for one in usage), 3),
        "retries": pulled.retries,
        "integrity": pulled.integrity,
    }
