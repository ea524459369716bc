"""``modelcache-csi``: the CSI node plugin as a process."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from modelcache_api.errors import InvalidRequestError, ModelCacheError
from modelcache_api.log_format import log_as_json
from modelcache_api.names import CSI_DRIVER
from modelcache_csi.app import Settings, run
from modelcache_csi.fuse.negotiation import Features
from modelcache_csi.lazy_processes import LOST_AFTER_S

_UNIX = "unix://"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.node_name:
        parser.error("--node-name (or $NODE_NAME) is needed")
    log_as_json(options.log_level.upper())
    try:
        asyncio.run(run(_settings(options)))
    except ModelCacheError as e:
        sys.exit(f"modelcache-csi: {e}")


def _parser() -> argparse.ArgumentParser:
    environment = os.environ.get
    parser = argparse.ArgumentParser(prog="modelcache-csi", description=__doc__)
    add = parser.add_argument
    add("--node-name", default=environment("NODE_NAME", ""), help="this node's name [$NODE_NAME]")
    add(
        "--kubelet-root",
        default=environment("KUBELET_ROOT", "/var/lib/kubelet"),
        help="the kubelet's directory, at the same path as on the host [$KUBELET_ROOT]",
    )
    add(
        "--endpoint",
        default=environment("CSI_ENDPOINT"),
        help=f"CSI socket; default: plugins/{CSI_DRIVER}/csi.sock beneath it [$CSI_ENDPOINT]",
    )
    add("--endpoint-on-host", help="the CSI socket's path as the kubelet sees it, if it differs")
    add("--registration-dir", help="default: plugins_registry beneath the kubelet's directory")
    add("--no-registration", action="store_true", help="do not register with a kubelet")
    add(
        "--data-dir",
        default=environment("MODELCACHE_DATA_DIR", "/var/lib/modelcache"),
        help="the agent's data directory [$MODELCACHE_DATA_DIR]",
    )
    add(
        "--agent-socket",
        default=environment("MODELCACHE_AGENT_SOCKET", "/run/modelcache/agent.sock"),
        help="the agent's unix socket [$MODELCACHE_AGENT_SOCKET]",
    )
    add(
        "--keeper-socket",
        type=Path,
        help="the keeper's unix socket; default: keeper.sock beside the agent's",
    )
    add(
        "--lazy-without",
        default="",
        help="features of newer kernels that lazy mounts are not to use: passthrough,resend",
    )
    add(
        "--lazy-lost-after",
        type=float,
        default=LOST_AFTER_S,
        metavar="SECONDS",
        help="give up a lazy mount that nobody has served for so long: its readers get errors"
        f" instead of waiting on; default: {LOST_AFTER_S:.0f}",
    )
    add("--health-host", default="", help="address of /healthz and /metrics; default: all")
    add("--health-port", type=int, default=9808, help="0: choose one; -1: none; default: 9808")
    add(
        "--shares-kubelets-mounts",
        action="store_true",
        help="the plugin runs in the kubelet's own mount namespace, not in a container",
    )
    add("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    return parser


def _settings(options: argparse.Namespace) -> Settings:
    kubelet_root = Path(os.path.normpath(options.kubelet_root)).absolute()
    default_socket = kubelet_root / "plugins" / CSI_DRIVER / "csi.sock"
    csi_socket = Path((options.endpoint or str(default_socket)).removeprefix(_UNIX)).absolute()
    registration_dir = Path(options.registration_dir or kubelet_root / "plugins_registry")
    return Settings(
        node_name=options.node_name,
        csi_socket=csi_socket,
        csi_socket_on_host=options.endpoint_on_host or str(csi_socket),
        registration_dir=None if options.no_registration else registration_dir,
        kubelet_root=PurePosixPath(kubelet_root),
        data_dir=Path(options.data_dir).absolute(),
        agent_socket=Path(options.agent_socket),
        keeper_socket=options.keeper_socket,
        lazy_features=_lazy_features(options.lazy_without),
        lazy_lost_after_s=options.lazy_lost_after,
        health_host=options.health_host,
        health_port=None if options.health_port < 0 else options.health_port,
        has_kubelets_mounts=options.shares_kubelets_mounts,
    )


def _lazy_features(without: str) -> Features:
    names = {name for name in without.split(",") if name}
    if unknown := names - {"passthrough", "resend"}:
        raise InvalidRequestError(f"--lazy-without: {unknown.pop()!r} is not a feature")
    return Features(passthrough="passthrough" not in names, resend="resend" not in names)


if __name__ == "__main__":
    main()
