"""The control plane: etcd, API server, controller manager and scheduler, in one namespace."""

from collections.abc import Sequence
from pathlib import Path

from e2e.lab import network
from e2e.lab.commands import LabError, run, wait_until
from e2e.lab.processes import Processes
from e2e.lab.settings import (
    API_PORT,
    CONTROL_PLANE_ADDRESS,
    SERVICE_RANGE,
    Settings,
)
from e2e.lab.tools import KUBERNETES, program

READY_TIMEOUT_S = 120.0
ETCD = "http://127.0.0.1:2379"
SERVERS = ("etcd", "apiserver")
CLIENTS = ("kcm", "scheduler")
PARTS = (*SERVERS, *CLIENTS)


def arguments(settings: Settings) -> dict[str, list[str | Path]]:
    """The command line of every part, in the order of their start."""
    return {
        "etcd": _etcd(settings),
        "apiserver": _apiserver(settings),
        "kcm": _kcm(settings),
        "scheduler": [
            program(KUBERNETES, "kube-scheduler"),
            f"--kubeconfig={settings.pki / 'scheduler.kubeconfig'}",
            "--leader-elect=false",
        ],
    }


def start(settings: Settings, processes: Processes) -> None:
    """Start all parts and wait until the API server says it is ready.

    The others come after it: they give up on one that takes more than ten seconds to answer.
    """
    for name, argv in arguments(settings).items():
        if name in CLIENTS:
            wait_ready(settings, processes, SERVERS)
        processes.start(name, [*network.inside(settings.control_plane_netns), *argv])
    wait_ready(settings, processes)


def wait_ready(settings: Settings, processes: Processes, parts: Sequence[str] = PARTS) -> None:
    """Wait for the API server.

    Raises:
        LabError: It ended, or is not ready in time.
    """

    def ready() -> bool:
        for part in parts:
            if not processes.is_running(part):
                raise LabError(f"{part} ended: see {processes.record(part).log}")
        probe = [str(settings.bin / "kubectl"), "get", "--raw", "/readyz"]
        return run(probe, check=False, timeout_s=30).returncode == 0

    wait_until(ready, "the API server to be ready", timeout_s=READY_TIMEOUT_S)


def stop(processes: Processes) -> None:
    """Stop all parts, the last started first."""
    for part in reversed(PARTS):
        processes.stop(part)


def _etcd(settings: Settings) -> list[str | Path]:
    return [
        "etcd",
        f"--data-dir={settings.directory / 'etcd'}",
        f"--listen-client-urls={ETCD}",
        f"--advertise-client-urls={ETCD}",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--unsafe-no-fsync",  # a lab's state is worth nothing after a power cut
        "--logger=zap",
    ]


def _apiserver(settings: Settings) -> list[str | Path]:
    pki = settings.pki
    return [
        program(KUBERNETES, "kube-apiserver"),
        f"--etcd-servers={ETCD}",
        f"--bind-address={CONTROL_PLANE_ADDRESS}",
        f"--advertise-address={CONTROL_PLANE_ADDRESS}",
        f"--secure-port={API_PORT}",
        f"--tls-cert-file={pki / 'api.crt'}",
        f"--tls-private-key-file={pki / 'api.key'}",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--kubelet-certificate-authority={pki / 'ca.crt'}",
        f"--kubelet-client-certificate={pki / 'api-client.crt'}",
        f"--kubelet-client-key={pki / 'api-client.key'}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-key-file={pki / 'sa.pub'}",
        f"--service-account-signing-key-file={pki / 'sa.key'}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        f"--token-auth-file={pki / 'tokens.csv'}",
        "--authorization-mode=Node,RBAC",
        # PodSecurity, ResourceQuota and ValidatingAdmissionPolicy are on by default
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--profiling=false",
    ]


def _kcm(settings: Settings) -> list[str | Path]:
    return [
        program(KUBERNETES, "kube-controller-manager"),
        f"--kubeconfig={settings.pki / 'kcm.kubeconfig'}",
        f"--service-account-private-key-file={settings.pki / 'sa.key'}",
        f"--root-ca-file={settings.pki / 'ca.crt'}",
        "--use-service-account-credentials",
        # half of Kubernetes' own: a node that is gone is noticed sooner, and tests wait less
        "--node-monitor-grace-period=25s",
        "--leader-elect=false",
    ]
