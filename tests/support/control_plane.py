"""A real API server with its etcd on loopback: authentication, RBAC, admission, no nodes.

Requests are made as any user by impersonation, with the extra fields of a bound token.
"""

import json
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Both are ready within seconds; arbitrary, well above.
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0
_TOKEN = "control-plane-of-a-test"
NODE_NAME_EXTRA = "authentication.kubernetes.io/node-name"

Object = dict[str, Any]

_PLURALS = {
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
    "CustomResourceDefinition": "customresourcedefinitions",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}


class RefusedError(Exception):
    """The API server said no; the text is its message.

    Attributes:
        status: HTTP status.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class User:
    """Who a request is made as; None in `name` is the administrator."""

    name: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict)

    def headers(self) -> dict[str, str]:
        if self.name is None:
            return {}
        found = {"Impersonate-User": self.name}
        if self.name.startswith("system:serviceaccount:"):
            found["Impersonate-Group"] = "system:serviceaccounts"
        for key, value in self.extra.items():
            found[f"Impersonate-Extra-{urllib.parse.quote(key, safe='')}"] = value
        return found


ADMINISTRATOR = User()


@dataclass(frozen=True)
class ApiServer:
    """A running API server."""

    url: str
    tls: ssl.SSLContext
    certificate: Path

    def kubeconfig(self, path: Path) -> Path:
        """Write what kubectl and helm need to be the administrator here."""
        server = {"server": self.url, "certificate-authority": str(self.certificate)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": server}],
            "users": [{"name": "admin", "user": {"token": _TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            "current-context": "test",
        }
        path.write_text(json.dumps(config))
        return path

    def request(
        self, method: str, path: str, body: Object | None = None, *, user: User = ADMINISTRATOR
    ) -> Object:
        """Raises RefusedError."""
        patching = method == "PATCH"
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {_TOKEN}",
                "Content-Type": "application/merge-patch+json" if patching else "application/json",
                **user.headers(),
            },
        )
        try:
            with urllib.request.urlopen(request, context=self.tls, timeout=30) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as e:
            with e:
                raise RefusedError(e.code, json.loads(e.read())["message"]) from None

    def create_cluster_object(self, body: Object) -> None:
        group_version = body["apiVersion"]
        self.request("POST", f"/apis/{group_version}/{_PLURALS[body['kind']]}", body)


@contextmanager
def control_plane(etcd: Path, kube_apiserver: Path, folder: Path) -> Iterator[ApiServer]:
    """Start both, wait until they are ready, stop both."""
    client_port, peer_port, api_port = _free_ports(3)
    store = f"http://127.0.0.1:{client_port}"
    _write_credentials(folder)
    commands = {
        "etcd": [
            *(str(etcd), "--data-dir", str(folder / "etcd"), "--unsafe-no-fsync"),
            *("--listen-client-urls", store, "--advertise-client-urls", store),
            *("--listen-peer-urls", f"http://127.0.0.1:{peer_port}"),
        ],
        "kube-apiserver": [
            *(str(kube_apiserver), f"--etcd-servers={store}", f"--secure-port={api_port}"),
            *("--bind-address=127.0.0.1", f"--cert-dir={folder / 'tls'}"),
            *(
                f"--token-auth-file={folder / 'tokens.csv'}",
                "--authorization-mode=RBAC",
                "--allow-privileged",
            ),
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={folder / 'sa.key'}",
            f"--service-account-signing-key-file={folder / 'sa.key'}",
            *(
                "--service-cluster-ip-range=10.96.0.0/16",
                "--disable-admission-plugins=ServiceAccount",
            ),
        ],
    }
    with ExitStack() as stack:
        running = [
            stack.enter_context(_process(command, folder / f"{name}.log"))
            for name, command in commands.items()
        ]
        yield _when_ready(f"https://127.0.0.1:{api_port}", folder, running)


def _when_ready(url: str, folder: Path, running: list[subprocess.Popen[bytes]]) -> ApiServer:
    give_up_at = time.monotonic() + START_TIMEOUT_S
    certificate = folder / "tls" / "apiserver.crt"
    while time.monotonic() < give_up_at and all(p.poll() is None for p in running):
        try:
            tls = ssl.create_default_context(cafile=str(certificate))
            server = ApiServer(url, tls, certificate)
            server.request("GET", "/api/v1/namespaces/default")
            return server
        except (OSError, RefusedError):
            time.sleep(0.2)
    raise AssertionError((folder / "kube-apiserver.log").read_text()[-2000:])


def _write_credentials(folder: Path) -> None:
    (folder / "tokens.csv").write_text(f'{_TOKEN},admin,1,"system:masters"\n')
    openssl = shutil.which("openssl") or "openssl"
    subprocess.run(
        [openssl, "genrsa", "-out", str(folder / "sa.key"), "2048"],
        check=True,
        capture_output=True,
        timeout=60,
    )


@contextmanager
def _process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=log.parent)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
