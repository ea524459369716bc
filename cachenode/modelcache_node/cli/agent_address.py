"""Flags into the address of an agent, and what it takes to be let in."""

import argparse

from modelcache_api.errors import InvalidRequestError
from modelcache_node.prefetching import AgentAddress


def agent_address(args: argparse.Namespace) -> AgentAddress:
    """Raises InvalidRequestError: an agent is not let in to without a token."""
    if args.agent and not args.token_file:
        raise InvalidRequestError("--agent needs --token-file")
    return AgentAddress(
        socket=args.socket,
        url=args.agent,
        server_name=args.agent_server_name,
        token_file=args.token_file,
        ca_file=args.agent_ca_file,
    )
