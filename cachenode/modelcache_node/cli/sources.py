"""Source flags into source options."""

import argparse
from typing import Any

from modelcache_api.errors import InvalidRequestError
from modelcache_node.origins.base import SourceOptions


def source_options(args: argparse.Namespace) -> SourceOptions:
    """Raises InvalidRequestError: the flags contradict each other."""
    return source_options_of(
        args,
        uri=args.uri,
        endpoint=args.endpoint,
        region=args.region,
        include=tuple(args.include),
        exclude=tuple(args.exclude),
        layout=args.layout,
        expected=args.expect_revision,
        safetensors_only=args.safetensors_only,
    )


def source_options_of(args: argparse.Namespace, **of_source: Any) -> SourceOptions:
    """The options of one source, under the access that `args` give.

    Raises:
        InvalidRequestError: the flags contradict each other.
    """
    if args.anonymous and args.credentials_dir:
        raise InvalidRequestError("--anonymous and --credentials-dir exclude each other")
    if args.ca_file and not args.ca_file.is_file():
        raise InvalidRequestError(f"--ca-file {args.ca_file}: no such file")
    return SourceOptions(
        **of_source,
        anonymous=args.anonymous,
        ca_file=args.ca_file,
        credentials_dir=args.credentials_dir,
        grant_s=args.grant_seconds,
        requester_pays=args.requester_pays,
        virtual_hosts=args.virtual_hosts,
    )
