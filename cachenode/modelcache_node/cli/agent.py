"""``modelcache agent``: run the cache agent of this node."""

import argparse
import asyncio

from modelcache_api.errors import InvalidRequestError
from modelcache_api.log_format import log_as_json
from modelcache_node.app import AgentOptions, run_agent
from modelcache_node.cli.arguments import PROOF_MAX_AGE_S
from modelcache_node.transfer.rules import NetworkRules, OpenNetwork, Rules


def run(args: argparse.Namespace) -> int:
    if args.job_listen and not (args.tls_cert and args.tls_key and args.kubernetes):
        raise InvalidRequestError(
            "--job-listen needs --tls-cert, --tls-key and --kubernetes (tokens are reviewed there)"
        )
    if args.peer_ca_file and not (args.tls_cert and args.tls_key):
        raise InvalidRequestError("--peer-ca-file needs --tls-cert and --tls-key")
    if args.kubernetes and not args.node_name:
        raise InvalidRequestError("--kubernetes needs --node-name")
    log_as_json(args.log_level.upper())
    asyncio.run(
        run_agent(
            AgentOptions(
                data_dir=args.data_dir,
                listen=args.listen,
                socket=args.socket,
                job_listen=args.job_listen,
                health_listen=args.health_listen,
                tls_cert=args.tls_cert,
                tls_key=args.tls_key,
                capacity_bytes=args.capacity,
                download_limit_bytes_per_s=args.download_limit,
                origin_limit_bytes_per_s=args.origin_limit,
                movers=args.movers,
                allow_any_disk=args.allow_any_disk,
                node_name=args.node_name if args.kubernetes else None,
                rules=_network_rules(args),
                peers=tuple(args.peer),
                advertise=args.advertise,
                cluster_key_file=args.cluster_key_file,
                upload_limit_bytes_per_s=args.upload_limit,
                peer_ca_file=args.peer_ca_file,
                proof_max_age_s=_proof_max_age_s(args),
            )
        )
    )
    return 0


def _network_rules(args: argparse.Namespace) -> Rules:
    """An agent without tenants, on somebody's own machine, may go wherever they can."""
    if not (args.kubernetes or args.allow_range or args.deny_range or args.allow_host):
        return OpenNetwork()
    return NetworkRules(tuple(args.allow_range), tuple(args.deny_range), tuple(args.allow_host))


def _proof_max_age_s(args: argparse.Namespace) -> float | None:
    """On a node without tenants there is nobody whose access could be withdrawn."""
    if args.proof_max_age is None:
        return PROOF_MAX_AGE_S if args.kubernetes else None
    return float(args.proof_max_age)
