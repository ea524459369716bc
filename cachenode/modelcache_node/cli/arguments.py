"""The arguments of every command. What is documented here is kept stable."""

import argparse
import re
from pathlib import Path
from typing import NoReturn, TypeAlias

from modelcache_api.layouts import LAYOUTS, PLAIN
from modelcache_node.transfer.rules import Network, parse_network

#: `pull` and `prefetch` give up after this long without progress.
GIVE_UP_S = 120.0
#: With tenants, a proof of access counts for this long: above a long outage of a store.
PROOF_MAX_AGE_S = 24 * 3600.0

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_BYTES = re.compile(r"(\d+(?:\.\d+)?)([kMGT]?|[KMGT]i)B?")


def byte_count(text: str) -> int:
    """``20G``, ``512Mi``, ``1000``: a number of bytes, as Kubernetes writes quantities."""
    match = _BYTES.fullmatch(text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 500G or 1.5Ti")
    return int(float(match[1]) * (_UNITS | _BINARY)[match[2]])


def host_port(text: str) -> tuple[str, int]:
    """``HOST:PORT``; ``:PORT`` and ``[::]:PORT`` listen on every address."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def address_range(text: str) -> Network:
    """``10.0.0.0/8``, or one address."""
    try:
        return parse_network(text)
    except ValueError as e:
        raise argparse.ArgumentTypeError(f"{text!r} is not a range such as 10.0.0.0/8: {e}") from e


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="modelcache", description="Bring large models to this node's disk and keep them there."
    )
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_agent(commands)
    _add_pull(commands)
    _add_prefetch(commands)
    _add_prove(commands)
    _add_inspecting(commands)
    _add_demo(commands)
    return parser


class _ShowVersion(argparse.Action):
    """Prints the version and exits."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version  # noqa: PLC0415 - 20 ms, which every command had paid

        print(f"modelcache {version('modelcache')}")
        parser.exit()


_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - it has no public name


def _command(commands: _Commands, name: str, module: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(module=module, command=name)
    return parser


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "uri",
        metavar="URI",
        help="the source: s3://, gs://, abfs://, az://, hf://, https://; see docs/SOURCES.md",
    )
    source = parser.add_argument_group("source")
    source.add_argument("--endpoint", metavar="URL", help="of a compatible store or a mirror")
    source.add_argument("--region", metavar="NAME")
    source.add_argument(
        "--include", action="append", default=[], metavar="GLOB", help="take only these; repeatable"
    )
    source.add_argument(
        "--exclude", action="append", default=[], metavar="GLOB", help="leave these out; repeatable"
    )
    parser.add_argument(
        "--layout",
        choices=LAYOUTS,
        default=PLAIN,
        help="hf: as Hugging Face's cache (default %(default)s)",
    )
    parser.add_argument(
        "--expect-revision", metavar="REVISION", help="refuse a source that is another"
    )
    parser.add_argument(
        "--safetensors-only", action="store_true", help="refuse files that run code when loaded"
    )
    _add_access(parser)


def _add_access(parser: argparse.ArgumentParser) -> None:
    source = parser.add_argument_group("access")
    source.add_argument("--anonymous", action="store_true", help="send no credentials")
    source.add_argument("--ca-file", type=Path, metavar="PEM", help="CAs to trust instead")
    _add_also_trust(source)
    source.add_argument(
        "--credentials-dir",
        type=Path,
        metavar="DIR",
        help="one file per key (AWS_ACCESS_KEY_ID, …), read anew when rotated",
    )
    source.add_argument(
        "--requester-pays", action="store_true", help="the reader's account pays (S3, GCS)"
    )
    source.add_argument(
        "--virtual-hosts", action="store_true", help="S3: the bucket in the endpoint's host name"
    )
    source.add_argument(
        "--grant-seconds",
        type=int,
        default=3600,
        metavar="S",
        help="how long each signed URL shall hold (default %(default)s)",
    )
    parser.add_argument(
        "--give-up",
        type=float,
        default=GIVE_UP_S,
        metavar="S",
        help="exit 75 after this long without progress (default %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one summary object")


def _add_also_trust(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--also-trust", type=Path, metavar="PEM", help="CAs to trust beside the public ones"
    )


def _add_agent(commands: _Commands) -> None:
    agent = _command(commands, "agent", "agent", "run the cache agent of this node")
    agent.add_argument("--data-dir", type=Path, required=True, metavar="DIR")
    agent.add_argument("--listen", type=host_port, required=True, metavar="HOST:PORT", help="peers")
    agent.add_argument("--socket", type=Path, required=True, metavar="PATH", help="this node's API")
    agent.add_argument("--job-listen", type=host_port, metavar="HOST:PORT", help="prefetch Jobs")
    agent.add_argument("--tls-cert", type=Path, metavar="F")
    agent.add_argument("--tls-key", type=Path, metavar="F")
    agent.add_argument("--capacity", type=byte_count, metavar="BYTES", help="default: the disk's")
    agent.add_argument(
        "--peer",
        type=host_port,
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="another agent, by the address that it listens on or advertises; repeatable",
    )
    agent.add_argument(
        "--advertise",
        type=host_port,
        metavar="HOST:PORT",
        help="how other agents reach this one (default: --listen)",
    )
    agent.add_argument(
        "--cluster-key-file",
        type=Path,
        metavar="F",
        help="by which agents know each other; without one they meet on loopback only",
    )
    agent.add_argument(
        "--peer-ca-file",
        type=Path,
        metavar="PEM",
        help="speak TLS between agents, with --tls-cert and these CAs",
    )
    agent.add_argument("--upload-limit", type=byte_count, metavar="BYTES_PER_S")
    agent.add_argument("--download-limit", type=byte_count, metavar="BYTES_PER_S")
    agent.add_argument(
        "--origin-limit",
        type=byte_count,
        metavar="BYTES_PER_S",
        help="of each revision's source, unless the operator says what this node's share is",
    )
    agent.add_argument("--config", type=Path, metavar="F", help="YAML with these names as keys")
    agent.add_argument("--movers", type=int, metavar="N", help="worker processes")
    agent.add_argument("--health-listen", type=host_port, metavar="HOST:PORT")
    agent.add_argument(
        "--allow-any-disk",
        action="store_true",
        help="accept a data directory on the root file system or a network disk",
    )
    _add_also_trust(agent)
    agent.add_argument("--kubernetes", action="store_true", help="keep this node's CacheNode")
    agent.add_argument("--node-name", metavar="NAME", help="this node, as Kubernetes calls it")
    agent.add_argument(
        "--proof-max-age",
        type=float,
        metavar="S",
        help=f"a proof of access counts for this long (with --kubernetes {PROOF_MAX_AGE_S:.0f})",
    )
    _add_network_rules(agent)
    agent.add_argument("--log-level", default="info", choices=("debug", "info", "warning"))


def _add_network_rules(agent: argparse.ArgumentParser) -> None:
    rules = agent.add_argument_group(
        "where sources may lead",
        "With --kubernetes, or one of these: nowhere private, link-local or on this host unless"
        " allowed. The narrowest range that holds an address decides.",
    )
    for flag, kind, shown, text in (
        ("--allow-range", address_range, "CIDR", "origins may be here; repeatable"),
        ("--deny-range", address_range, "CIDR", "origins may not be here; repeatable"),
        ("--allow-host", str, "GLOB", "of hosts only these; repeatable"),
    ):
        rules.add_argument(flag, type=kind, action="append", default=[], metavar=shown, help=text)


def _add_pull(commands: _Commands) -> None:
    pull = _command(commands, "pull", "pull", "fetch a source into a directory, without an agent")
    _add_source(pull)
    pull.add_argument("--to", type=Path, required=True, metavar="DIR")
    pull.add_argument("--movers", type=int, metavar="N", help="worker processes")
    pull.add_argument("--download-limit", type=byte_count, metavar="BYTES_PER_S")


def _add_prefetch(commands: _Commands) -> None:
    prefetch = _command(commands, "prefetch", "prefetch", "have an agent fetch a source, and wait")
    _add_source(prefetch)
    _add_agent_address(prefetch)
    prefetch.add_argument("--model-cache", default="", metavar="NAME", help="for which ModelCache")
    prefetch.add_argument("--model-cache-uid", default="", metavar="UID")
    prefetch.add_argument(
        "--resolved", metavar="REVISION", help="what the source is known to be: a mirror must be it"
    )
    prefetch.add_argument("--request", default="", help="the operator's name for this request")


def _add_prove(commands: _Commands) -> None:
    prove = _command(
        commands, "prove", "prove", "prove to an agent that sources can be read; fetch nothing"
    )
    prove.add_argument(
        "--source",
        action="append",
        required=True,
        metavar="JSON",
        help="uri, endpoint, region, include, exclude, modelCache, modelCacheUid, request, renews;"
        " repeatable",
    )
    _add_access(prove)
    _add_agent_address(prove)


def _add_agent_address(parser: argparse.ArgumentParser) -> None:
    agent = parser.add_mutually_exclusive_group(required=True)
    agent.add_argument("--socket", type=Path, metavar="PATH", help="the agent of this node")
    agent.add_argument("--agent", metavar="URL", help="an agent's Job API, https://…")
    parser.add_argument("--token-file", type=Path, metavar="F")
    parser.add_argument("--agent-ca-file", type=Path, metavar="F")
    parser.add_argument("--agent-server-name", metavar="NAME", help="in the agent's certificate")
    parser.add_argument(
        "--mirrors", metavar="JSON", help="other places of sources; modelcache_api/mirrors.py"
    )
    parser.add_argument("--namespace", default="", help="on the socket: for which namespace")
    parser.add_argument("--termination-log", type=Path, metavar="F", help="where to say why not")


def _add_inspecting(commands: _Commands) -> None:
    for name, text in (
        ("ls", "list the revisions of this node"),
        ("status", "what this node's agent says of itself"),
        ("verify", "read a revision again and repair what is corrupt"),
        ("evict", "remove a revision from this node"),
        ("pin", "keep a revision from eviction"),
        ("doctor", "check this node and say what to mend"),
    ):
        parser = _command(commands, name, "inspecting", text)
        if name in ("verify", "evict", "pin"):
            parser.add_argument(
                "revision", metavar="REVISION", help="sha256:…, or its first digits"
            )
        if name == "verify":
            parser.add_argument(
                "--wait",
                type=float,
                default=0.0,
                metavar="S",
                help="so long for a prefetch to bring back what is corrupt (default %(default)s)",
            )
        if name == "pin":
            parser.add_argument("--off", action="store_true", help="let it be evicted again")
        parser.add_argument("--socket", type=Path, required=True, metavar="PATH")
        parser.add_argument("--json", action="store_true")


def _add_demo(commands: _Commands) -> None:
    demo = _command(commands, "demo", "demo", "three agents on loopback fetch a generated model")
    demo.add_argument("--size", type=byte_count, default=2**30, metavar="BYTES")
    demo.add_argument("--agents", type=int, default=3, metavar="N")
    demo.add_argument("--keep", type=Path, metavar="DIR", help="work there and leave the files")
