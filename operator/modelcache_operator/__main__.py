"""``modelcache-operator``: parse the command line and run."""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from modelcache_api.errors import ModelCacheError
from modelcache_api.mirrors import mirrors_from_json
from modelcache_operator.app import Options, run
from modelcache_operator.handlers.reconciling import PROOF_MAX_AGE


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; returns after SIGTERM or SIGINT."""
    args = build_parser().parse_args(argv)
    logging.basicConfig(
        level=args.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("kopf").setLevel(max(logging.WARNING, logging.getLogger().level))
    try:
        asyncio.run(run(_options(args)))
    except ModelCacheError as e:
        sys.exit(f"modelcache-operator: {e.reason}: {e}")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="modelcache-operator", description="Reconcile ModelCache and CacheNode objects."
    )
    parser.add_argument("--image", required=True, help="of prefetch Jobs: this release's image")
    parser.add_argument(
        "--image-pull-policy", default="IfNotPresent", choices=("Always", "IfNotPresent", "Never")
    )
    parser.add_argument(
        "--image-pull-secret",
        action="append",
        default=[],
        metavar="NAME",
        help="a Secret of every namespace that has a ModelCache; repeatable",
    )
    parser.add_argument(
        "--agent-host",
        required=True,
        metavar="ADDRESS",
        help="cluster address of the agents' Service (internalTrafficPolicy: Local)",
    )
    parser.add_argument("--agent-port", required=True, type=int, metavar="PORT")
    parser.add_argument(
        "--agent-ca-file",
        required=True,
        type=Path,
        metavar="PEM",
        help="who signed the agents' certificate; put into every Job",
    )
    parser.add_argument("--health-listen", type=_host_port, default=("", 8080), metavar="HOST:PORT")
    parser.add_argument("--workers", type=int, default=4, help="keys worked on at once")
    parser.add_argument(
        "--kubeconfig",
        default=os.environ.get("KUBECONFIG"),
        help="run outside a cluster; default: $KUBECONFIG, else the pod's ServiceAccount",
    )
    parser.add_argument(
        "--proof-max-age",
        type=float,
        default=PROOF_MAX_AGE.total_seconds(),
        metavar="S",
        help="as the agents are told; proofs are renewed at half of it (default %(default)s)",
    )
    parser.add_argument(
        "--origin-limit",
        type=int,
        metavar="BYTES_PER_S",
        help="what all agents may read from sources together; default: no limit",
    )
    parser.add_argument("--job-https-proxy", default="", metavar="URL", help="HTTPS_PROXY of Jobs")
    parser.add_argument("--job-http-proxy", default="", metavar="URL", help="HTTP_PROXY of Jobs")
    parser.add_argument("--job-no-proxy", default="", metavar="LIST", help="NO_PROXY of Jobs")
    parser.add_argument(
        "--job-mirrors",
        default="",
        type=_mirrors,
        metavar="JSON",
        help="other places of sources, for Jobs; modelcache_api/mirrors.py has the form",
    )
    parser.add_argument(
        "--job-authorities-file",
        type=Path,
        metavar="PEM",
        help="whom Jobs trust beside the public authorities",
    )
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning"))
    return parser


def _options(args: argparse.Namespace) -> Options:
    return Options(
        image=args.image,
        image_pull_policy=args.image_pull_policy,
        image_pull_secrets=tuple(args.image_pull_secret),
        agent_host=args.agent_host,
        agent_port=args.agent_port,
        agent_ca_file=args.agent_ca_file,
        health_listen=args.health_listen,
        workers=args.workers,
        kubeconfig=args.kubeconfig,
        proof_max_age_s=args.proof_max_age,
        origin_limit_bytes_per_s=args.origin_limit,
        job_https_proxy=args.job_https_proxy,
        job_http_proxy=args.job_http_proxy,
        job_no_proxy=args.job_no_proxy,
        job_mirrors=args.job_mirrors,
        job_authorities_file=args.job_authorities_file,
    )


def _host_port(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def _mirrors(text: str) -> str:
    if not text:  # the default
        return text
    try:
        mirrors_from_json.validate_json(text)
    except ValidationError as e:
        raise argparse.ArgumentTypeError(f"{e.errors(include_input=False)[:3]}") from None
    return text


if __name__ == "__main__":
    main()
