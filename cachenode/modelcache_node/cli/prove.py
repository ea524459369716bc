"""``modelcache prove``: have an agent see that sources can still be read, and fetch nothing."""

import argparse
import asyncio
import json
import time

from pydantic import ValidationError

from modelcache_api.errors import InvalidRequestError, ModelCacheError
from modelcache_api.messages import Hello, RenewalWish
from modelcache_node.cli.agent_address import agent_address
from modelcache_node.cli.mirrors import mirrors
from modelcache_node.cli.sources import source_options_of
from modelcache_node.patience import Patience
from modelcache_node.prefetching import Prefetch


def run(args: argparse.Namespace) -> int:
    try:
        wishes = [RenewalWish.model_validate_json(text) for text in args.source]
    except ValidationError as e:
        raise InvalidRequestError(f"--source: {e.errors(include_input=False)[:3]}") from e
    failures = asyncio.run(_prove_all(args, wishes))
    print(json.dumps({"proved": len(wishes) - len(failures), "failed": len(failures)}))
    if failures:
        raise failures[0]
    return 0


async def _prove_all(args: argparse.Namespace, wishes: list[RenewalWish]) -> list[ModelCacheError]:
    """One after another: nothing waits for it, and the origin is not to notice."""
    failures: list[ModelCacheError] = []
    for wish in wishes:
        try:
            await _prove(args, wish)
        except ModelCacheError as e:
            failures.append(type(e)(f"{wish.model_cache}: {e}"))
    return failures


async def _prove(args: argparse.Namespace, wish: RenewalWish) -> None:
    options = source_options_of(
        args,
        uri=wish.uri,
        endpoint=wish.endpoint,
        region=wish.region,
        include=tuple(wish.include),
        exclude=tuple(wish.exclude),
    )
    hello = Hello(
        namespace=args.namespace,
        model_cache=wish.model_cache,
        model_cache_uid=wish.model_cache_uid,
        request=wish.request,
        ca_pem=options.ca_file.read_text() if options.ca_file else None,
        renews=wish.renews,
    )
    patience = Patience(args.give_up, clock=time.monotonic)
    await Prefetch(
        options,
        agent_address(args),
        hello,
        on_progress=lambda _: None,
        patience=patience,
        mirrors=mirrors(options, args.mirrors),
    ).prove()
